"""Batch job: shards -> features.

    python -m pipelines.extract --set dataset=demo/job --set encoders=[minilm]
    python -m pipelines.extract CONFIG.yaml --set workers=8

CONFIG.yaml holds the keys of `mmdata.config.ExtractConfig`. On a running cluster:

    ray job submit --working-dir . -- python -m pipelines.extract CONFIG.yaml
"""

from mmdata.config import ExtractConfig
from mmdata.console import Progress, show_summary
from mmdata.stages import resources_of
from mmdata.stages.extract import extract
from pipelines._main import run_job


def main(config: ExtractConfig) -> None:
    """Run the stage and print its summary."""
    show_summary(extract(config, resources_of(config), Progress()), as_json=False)


if __name__ == "__main__":
    run_job(main, ExtractConfig, __doc__)
