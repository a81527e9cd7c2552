"""The tables. Times are seconds since 1970 by the database's clock; JSON is text, so that both databases keep it alike.

Digests name blobs (:mod:`certes_service.storage.blobs`); a blob that no row names is garbage.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_ID, _DIGEST, _NAME = sa.String(64), sa.String(64), sa.String(200)
_TIME: sa.Double[float] = sa.Double()


def _text(name: str, *, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=null)


#: Who keeps things here. ``limits``: JSON of settings that differ for this tenant, or null.
tenants = sa.Table(
    "tenants",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("name", _NAME, nullable=False, unique=True),
    sa.Column("created", _TIME, nullable=False),
    _text("limits", null=True),
)

#: API keys. ``hash``: sha256 of the secret, in hex; the secret itself is shown once and never kept.
keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("tenant", _ID, sa.ForeignKey("tenants.id"), nullable=False, index=True),
    sa.Column("name", _NAME, nullable=False),
    sa.Column("hash", _DIGEST, nullable=False, unique=True),
    sa.Column("scopes", sa.String(200), nullable=False),
    sa.Column("created", _TIME, nullable=False),
    sa.Column("expires", _TIME, nullable=True),
    sa.Column("revoked", _TIME, nullable=True),
    sa.Column("used", _TIME, nullable=True),
)

#: Sessions of the page. ``hash``: sha256 of the cookie's value.
sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("hash", _DIGEST, primary_key=True),
    sa.Column("key", _ID, sa.ForeignKey("keys.id"), nullable=False, index=True),
    sa.Column("csrf", _ID, nullable=False),
    sa.Column("created", _TIME, nullable=False),
    sa.Column("expires", _TIME, nullable=False),
)

#: ``envelope``, ``proof``, ``weights``: digests of the tenant's blobs; ``weights`` only of files made here.
certificates = sa.Table(
    "certificates",
    metadata,
    sa.Column("tenant", _ID, primary_key=True),
    sa.Column("digest", _DIGEST, primary_key=True),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("envelope", _DIGEST, nullable=False),
    sa.Column("proof", _DIGEST, nullable=False),
    sa.Column("weights", _DIGEST, nullable=True),
    sa.Column("public", sa.Boolean, nullable=False, default=False),
    sa.Column("created", _TIME, nullable=False),
)
sa.Index("ix_certificates_digest_public", certificates.c.digest, certificates.c.public)
sa.Index("ix_certificates_tenant_created", certificates.c.tenant, certificates.c.created)

#: Question -> answer (JSON, without its certificate's envelope).
answers = sa.Table(
    "answers",
    metadata,
    sa.Column("tenant", _ID, primary_key=True),
    sa.Column("question", _DIGEST, primary_key=True),
    _text("answer"),
    sa.Column("created", _TIME, nullable=False, index=True),
)

#: One question that is being answered, or was. ``owner`` and ``attempt`` fence its writers: only the worker that took
#: it last may write to it. ``weights`` and ``checkpoint`` name blobs. ``spent``: seconds of all attempts at a training.
jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("tenant", _ID, nullable=False),
    sa.Column("kind", sa.String(40), nullable=False),
    sa.Column("queue", sa.String(20), nullable=False),
    sa.Column("question", _DIGEST, nullable=False),
    _text("request"),
    sa.Column("weights", _DIGEST, nullable=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("state", sa.String(12), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False, default=0),
    sa.Column("deadline", _TIME, nullable=True),
    sa.Column("created", _TIME, nullable=False),
    sa.Column("started", _TIME, nullable=True),
    sa.Column("finished", _TIME, nullable=True),
    sa.Column("owner", sa.String(200), nullable=True),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("dispatched", sa.Boolean, nullable=False, default=False),
    sa.Column("spent", _TIME, nullable=False, default=0.0, server_default=sa.text("0")),
    _text("progress", null=True),
    sa.Column("checkpoint", _DIGEST, nullable=True),
    _text("answer", null=True),
    _text("error", null=True),
)
_ACTIVE = sa.or_(jobs.c.state == "queued", jobs.c.state == "running")
#: The same question is computed once: at most one job of it is alive.
sa.Index("uq_jobs_alive", jobs.c.tenant, jobs.c.question, unique=True, sqlite_where=_ACTIVE, postgresql_where=_ACTIVE)
sa.Index("ix_jobs_tenant_created", jobs.c.tenant, jobs.c.created)
sa.Index("ix_jobs_state", jobs.c.state)

#: Idempotency keys: the same key is the same job, or an error if the question is another.
idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("tenant", _ID, primary_key=True),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("question", _DIGEST, nullable=False),
    sa.Column("job", _ID, nullable=True),
    sa.Column("created", _TIME, nullable=False, index=True),
)

#: Processes that work on jobs, by their signs of life.
executors = sa.Table(
    "executors",
    metadata,
    sa.Column("id", sa.String(200), primary_key=True),
    sa.Column("host", _NAME, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("queues", sa.String(200), nullable=False),
    sa.Column("version", sa.String(40), nullable=False),
    sa.Column("started", _TIME, nullable=False),
    sa.Column("beat", _TIME, nullable=False),
)

#: Public halves of every key that ever signed here: old certificates stay verifiable.
signing_keys = sa.Table(
    "signing_keys",
    metadata,
    sa.Column("id", _DIGEST, primary_key=True),
    _text("public"),
    sa.Column("created", _TIME, nullable=False),
)
