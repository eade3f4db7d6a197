"""The service: mmdata serve, and the same on Ray Serve."""

from pathlib import Path

from pydantic import Field

from mmdata.config.model import Model, Size


class ServeConfig(Model):
    """Indexes -> answers over HTTP."""

    dataset: str = Field(description="folder, or s3://, gs:// or az:// prefix, of the dataset")
    host: str = Field("127.0.0.1", description="address to listen at; others than this machine need api_key_file")
    port: int = Field(8000, ge=0, le=65535)
    api_key_file: Path | None = Field(None, description="file with the key that requests must carry")
    allow_host: tuple[str, ...] = Field((), description="names that the service is reached by")
    max_body: Size = Field(8_388_608, description="bytes of a request, uploads included")
    max_k: int = Field(1000, gt=0, description="hits of a query")
    max_seconds: float = Field(30.0, gt=0, description="for a search")
    max_requests: int = Field(256, gt=0, description="requests that are open at once, in a replica")
    replicas: int = Field(2, gt=0, description="on Ray Serve: processes that answer")
    cpus_per_replica: float = Field(1.0, gt=0, description="on Ray Serve")
    ray_address: str | None = Field(None, description="of a running cluster; default: RAY_ADDRESS")
