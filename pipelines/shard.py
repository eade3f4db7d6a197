"""Batch job: raw corpus -> shards.

    python -m pipelines.shard --set source=demo/corpus --set dataset=demo/job
    python -m pipelines.shard CONFIG.yaml --set workers=8

CONFIG.yaml holds the keys of `mmdata.config.ShardConfig`. On a running cluster:

    ray job submit --working-dir . -- python -m pipelines.shard CONFIG.yaml
"""

from mmdata.config import ShardConfig
from mmdata.console import Progress, show_summary
from mmdata.stages import resources_of
from mmdata.stages.shard import shard
from pipelines._main import run_job


def main(config: ShardConfig) -> None:
    """Run the stage and print its summary."""
    show_summary(shard(config, resources_of(config), Progress()), as_json=False)


if __name__ == "__main__":
    run_job(main, ShardConfig, __doc__)
