"""Batch job: features -> FAISS index.

    python -m pipelines.index --set dataset=demo/job --set features=minilm
    python -m pipelines.index CONFIG.yaml --set kind=ivf-flat

CONFIG.yaml holds the keys of `mmdata.config.IndexConfig`. On a running cluster:

    ray job submit --working-dir . -- python -m pipelines.index CONFIG.yaml
"""

from mmdata.config import IndexConfig
from mmdata.console import Progress, show_summary
from mmdata.stages import resources_of
from mmdata.stages.index import index
from pipelines._main import run_job


def main(config: IndexConfig) -> None:
    """Run the stage and print its summary."""
    show_summary(index(config, resources_of(config), Progress()), as_json=False)


if __name__ == "__main__":
    run_job(main, IndexConfig, __doc__)
