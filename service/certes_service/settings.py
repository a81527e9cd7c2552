"""What an operator may set: environment variables, one file, or the command line. Bytes, states and seconds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote

from certes.errors import InputError
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

MEBIBYTE = 2**20
PREFIX = "CERTES_"
#: Names the file of settings (TOML). Everything else about the service may stand in it.
FILE_VARIABLE = "CERTES_CONFIG"
#: Settings whose values are never shown: not in errors, not by ``certes config``, not in the log.
SECRETS = ("database", "signing_key", "blob_options")
_POSTGRESQL = ("postgres://", "postgresql://", "postgresql+psycopg://")

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


def _pem(value: object) -> object:
    """A key may be given as bytes, as its author has it in hand."""
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value


class Settings(BaseSettings):
    """Settings of the service.

    Each is an environment variable ``CERTES_NAME``, an entry ``name`` of the TOML file that ``CERTES_CONFIG`` names, or
    an argument. An argument wins over the environment, and that over the file.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    data: Path = Field(Path("certes-data"), description="Directory of the embedded database and blobs.")
    database: SecretStr | None = Field(
        None, description="Database URL (postgresql://USER:PASSWORD@HOST/NAME); unset: SQLite files in `data`."
    )
    database_password_file: Path | None = Field(
        None, description="File with the password of that URL, which is then left out of it."
    )
    blobs: str | None = Field(
        None,
        description="Where bytes are kept: a directory or an fsspec URL (s3://BUCKET/PREFIX); unset: `data`/blobs.",
    )
    blob_options: dict[str, Any] = Field(
        default_factory=dict, repr=False, description="Options of that file system (JSON), as fsspec takes them."
    )

    host: str = Field("127.0.0.1", description="Address to listen on. Beyond loopback `keys` must be on.")
    port: int = Field(8080, ge=0, le=65535, description="Port; 0 lets the system pick.")
    keys: bool = Field(False, description="Ask for an API key (bearer), or a session on the page.")
    allowed_hosts: tuple[str, ...] = Field(
        (), description="Host names under which the service is reached (JSON list), besides its address."
    )
    secure_cookies: bool = Field(False, description="The page is reached by https only: mark its cookies Secure.")
    page: bool = Field(True, description="Serve the web page at /.")

    max_body_bytes: Count = Field(256 * MEBIBYTE, description="Largest request body, enforced while it arrives.")
    max_json_bytes: Count = Field(
        32 * MEBIBYTE, description="Largest JSON body or part; JSON costs far more memory than its length."
    )
    max_states: Count = Field(4096, description="Largest number of states of a dense system.")
    requests_per_minute: Count = Field(1200, description="Requests of one tenant in a minute; beyond: 429.")
    queue: Annotated[int, Field(ge=0)] = Field(
        64, description="Jobs of one tenant that may wait or run at once; beyond: 429."
    )
    tenant_bytes: Count = Field(20 * 1024 * MEBIBYTE, description="Bytes that one tenant may keep; beyond: 413.")

    solvers: Count = Field(2, description="Solver processes of one service or worker process.")
    worker: bool = Field(True, description="Work on jobs inside `certes serve`; off: only `certes worker` does.")
    solve_seconds: Positive = Field(300.0, description="Longest time of a solver for one question.")
    train_seconds: Positive = Field(86400.0, description="Longest time of one training.")
    solver_memory_bytes: Count = Field(8192 * MEBIBYTE, description="Memory of one solver process.")
    wait_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        5.0, description="How long a call waits for its answer before it becomes a job (Prefer: wait=N)."
    )
    wait_most: Positive = Field(60.0, description="Longest wait that a call may ask for.")
    beat_seconds: Positive = Field(5.0, description="Time between two signs of life of a worker.")
    lease_seconds: Positive = Field(
        15.0, validate_default=True, description="Silence after which a worker's jobs go to others."
    )
    grace_seconds: Positive = Field(10.0, description="How long running work may go on after SIGTERM.")
    poll_seconds: Positive = Field(0.5, description="How often a worker looks for queued jobs.")

    job_days: Positive = Field(30.0, description="How long finished jobs are kept.")
    answer_days: Positive = Field(365.0, description="How long answers are remembered.")
    blob_grace_seconds: Annotated[float, Field(ge=0)] = Field(
        3600.0, description="Age below which an unreferenced blob is not collected: it may be about to be named."
    )
    collect_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        3600.0,
        description="Time between two collections of what is not kept any longer; 0: none by itself.",
    )

    signing_key: Annotated[SecretStr | None, BeforeValidator(_pem)] = Field(
        None, description="Ed25519 private key (PEM) that signs every certificate; unset: unsigned."
    )
    signing_key_file: Path | None = Field(None, description="File with that key, instead of the key itself.")

    log_format: Literal["json", "console"] = Field("json", description="How the log is written (to stderr).")
    log_level: Literal["debug", "info", "warning", "error"] = Field("warning", description="What is logged.")
    metrics: bool = Field(True, description="Answer /metrics.")
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        None, description="Port on which `certes worker` answers /metrics, at `host`; unset: it does not."
    )

    @classmethod
    def read(cls, **given: Any) -> Self:
        """Settings from arguments, environment and file; arguments that are None count as not given.

        Raises:
            InputError: naming the setting.
        """
        try:
            return cls(**{name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            raise _refused(error) from None
        except SettingsError as error:  # a variable that should be JSON
            name = next((name for name in cls.model_fields if f'"{name}"' in str(error)), FILE_VARIABLE)
            raise InputError(name, "a value that is not shown", "JSON", "setting") from None
        except (OSError, ValueError) as error:
            raise InputError(
                FILE_VARIABLE, os.environ.get(FILE_VARIABLE, ""), f"a TOML file: {error}", "setting"
            ) from None

    @field_validator("database")
    @classmethod
    def _is_postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(_POSTGRESQL):
            raise ValueError("a URL postgresql://USER:PASSWORD@HOST/NAME")
        return value

    @field_validator("lease_seconds")
    @classmethod
    def _outlasts_a_beat(cls, value: float, info: ValidationInfo) -> float:
        if value <= info.data.get("beat_seconds", 0.0):
            raise ValueError("more than beat_seconds: otherwise the living count as dead")
        return value

    @field_validator("signing_key_file")
    @classmethod
    def _is_the_only_key(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("signing_key") is not None:
            raise ValueError("nothing, as signing_key is set: one of the two signs")
        return value

    @field_validator("database_password_file")
    @classmethod
    def _has_a_url(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("database") is None:
            raise ValueError("nothing, as database is not set: it would be the password of that URL")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then environment, then the file that the environment names."""
        file = os.environ.get(FILE_VARIABLE)
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        if not file:
            return sources
        if not Path(file).is_file():
            raise InputError(FILE_VARIABLE, file, "a file that can be read", "setting")
        return (*sources, TomlConfigSettingsSource(settings_cls, Path(file)))

    @property
    def database_url(self) -> str:
        """SQLAlchemy's URL of our tables."""
        return self._postgresql or f"sqlite:///{self.data / 'certes.db'}"

    @property
    def jobs_url(self) -> str:
        """SQLAlchemy's URL of the tables of the durable queue: the same PostgreSQL, or a second SQLite file."""
        return self._postgresql or f"sqlite:///{self.data / 'jobs.db'}"

    @property
    def _postgresql(self) -> str | None:
        if self.database is None:
            return None
        url = _psycopg(self.database.get_secret_value())
        if self.database_password_file is None:
            return url
        password = _content("database_password_file", self.database_password_file, "a readable file").strip()
        scheme, _, rest = url.partition("://")
        user, at, place = rest.rpartition("@")
        if not at or ":" in user:
            expected = "a URL with a user and without a password: database_password_file has it"
            raise InputError("database", "a value that is not shown", expected, "setting")
        return f"{scheme}://{user}:{quote(password.decode('utf-8', 'replace'), safe='')}@{place}"

    @property
    def blobs_url(self) -> str:
        """Where blobs are."""
        return str(self.data / "blobs") if self.blobs is None else self.blobs

    @property
    def private_key(self) -> bytes | None:
        """The signing key in PEM.

        Raises:
            InputError: the file cannot be read.
        """
        if self.signing_key is not None:
            return self.signing_key.get_secret_value().encode()
        if self.signing_key_file is None:
            return None
        return _content("signing_key_file", self.signing_key_file, "a readable private key (PEM)")


def _psycopg(url: str) -> str:
    """The URL with the driver that is installed."""
    return "postgresql+psycopg://" + url.partition("://")[2]


def _content(name: str, path: Path, expected: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(name, f"{path}: {error.strerror}", expected, "unreadable") from error


def _refused(error: ValidationError) -> InputError:
    """What is wrong with the first setting that is wrong."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return InputError(name, "a setting of that name", "a name that `certes config` lists", "setting")
    secret = name.partition(".")[0] in SECRETS
    given = "a value that is not shown" if secret else repr(first.get("input"))[:200]
    expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return InputError(name, given, expected, "setting")
