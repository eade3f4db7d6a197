"""Batch job: raw corpus -> shards -> features -> aligned features -> indexes.

    python -m pipelines.end_to_end configs/demo/end_to_end.yaml --set workers=2

CONFIG.yaml holds the keys of `mmdata.config.EndToEndConfig`: a section a stage. What is finished is not done
again, so the same command resumes. On a running cluster:

    ray job submit --working-dir . -- python -m pipelines.end_to_end configs/demo/end_to_end.yaml
"""

from mmdata.config import EndToEndConfig
from mmdata.console import Progress, show_summary
from mmdata.stages import resources_of
from mmdata.stages.align import align
from mmdata.stages.extract import extract
from mmdata.stages.index import index
from mmdata.stages.shard import shard
from pipelines._main import run_job


def main(config: EndToEndConfig) -> None:
    """Run the stages one after the other and print their summaries."""
    watch = Progress()
    show_summary(shard(config.shard, resources_of(config.shard), watch), as_json=False)
    show_summary(extract(config.extract, resources_of(config.extract), watch), as_json=False)
    for head in config.align:
        show_summary(align(head, resources_of(head), watch), as_json=False)
    for features in config.index:
        show_summary(index(features, resources_of(features), watch), as_json=False)


if __name__ == "__main__":
    run_job(main, EndToEndConfig, __doc__)
