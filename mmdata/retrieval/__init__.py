"""FAISS indexes over feature sets, and queries of any modality against them."""
