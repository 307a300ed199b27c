"""What a service promises, and where it stops: read from the environment."""

import os

from pydantic import BaseModel, Field


class Settings(BaseModel):
    """Each is read from the environment: `max_draws` from MURHO_MAX_DRAWS."""

    artifact: str
    """Path of an artifact of murho."""
    trusted: bool = False
    """Whether to open a .pt or .pt2 file, which is a program."""
    max_draws: int = Field(4096, ge=2)
    """Of a request, as are the next six."""
    max_rows: int = Field(256, ge=1)
    max_steps: int = Field(4096, ge=1)
    """Of a sequence, where the network reads sequences of any length."""
    max_levels: int = Field(16, ge=1)
    max_cost: int = Field(2**25, ge=1)
    """Rows × steps × draws × levels. No call of the model costs more either."""
    max_values: int = Field(2**16, ge=1)
    """Numbers in the answer."""
    max_body: int = Field(2**18, ge=1)
    """Bytes."""
    max_waiting: int = Field(2**28, ge=1)
    """The cost of all requests that are not answered yet; who comes on top is told to come again (503)."""
    max_connections: int = Field(512, ge=2)
    client_seconds: int = Field(10, ge=1)
    """How long a client may take for a request's header, for its body, and to read the answer."""
    answer_seconds: float = Field(30.0, gt=0)
    """How long a request may wait for its answer; then its client is told to come again (503)."""
    batch_rows: int = Field(64, ge=1)
    """Rows of one call, beyond which a further request waits for the next one."""
    window_ms: float = Field(2.0, ge=0)
    """How long a first request waits for others to share its call."""

    @classmethod
    def from_environment(cls) -> "Settings":
        names = {name: f"MURHO_{name.upper()}" for name in cls.model_fields}
        return cls.model_validate({name: os.environ[key] for name, key in names.items() if key in os.environ})
