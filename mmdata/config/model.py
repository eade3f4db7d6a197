"""What all configs have in common."""

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def _bytes(value: Any) -> Any:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?", str(value).strip(), re.IGNORECASE)
    if match is None:
        raise ValueError("a size is a number of bytes, or like 256MB or 1GiB")
    return int(float(match[1]) * UNITS[(match[2] or "").upper()])


Size = Annotated[int, BeforeValidator(_bytes), Field(gt=0)]
Rate = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[\w][\w.-]*$")]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Run(Model):
    dataset: str = Field(description="folder, or s3://, gs:// or az:// prefix, of the dataset")
    overwrite: bool = Field(False, description="make again what was made from something else")


class Job(Run):
    workers: int | None = Field(None, ge=0, description="Ray workers; 0 is this process without Ray")
    cpus_per_worker: float | None = Field(None, gt=0)
    gpus_per_worker: float | None = Field(None, ge=0)
    ray_address: str | None = Field(None, description="of a running cluster; default: RAY_ADDRESS")
    sample_timeout: float = Field(600.0, gt=0, description="seconds that a sample, or a batch, may be in work")
    shard_timeout: float | None = Field(None, gt=0, description="seconds of a shard; default: no limit")
    wait_for_nodes: float = Field(0.0, ge=0, description="seconds that an autoscaler has for the first worker")
    max_reject_rate: Rate = Field(0.05, description="above it the job ends with exit code 3")
