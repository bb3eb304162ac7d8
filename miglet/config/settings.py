"""The effective configuration as typed values: ``settings.controller.timeout``.

Printed from schema.json by ``python -m miglet.config.docs settings``; do not edit it.
"""

# Without postponed annotations: `Section.of` reads the types.
from typing import Literal

from miglet.config.section import Section


class AuthSettings(Section):
    """What MIGlet shows the controller to be let in."""

    #: How MIGlet authenticates: with a bearer token, a client certificate, or not at
    #: all.
    type: Literal["bearer", "mtls", "none"]
    #: File that holds the bearer token; read anew when it changes.
    token_path: str | None
    #: File with the client certificate and its chain (PEM), for mtls.
    certificate_path: str | None
    #: File with the client certificate's private key (PEM), for mtls.
    key_path: str | None
    #: File with the authorities that may have signed the controller's certificate
    #: (PEM); null trusts the system's.
    ca_path: str | None


class RetrySettings(Section):
    """How one failed call is tried again."""

    #: Attempts per call before it counts as failed.
    max_attempts: int
    #: Longest pause before the second attempt; it doubles with each further one.
    initial_backoff: float
    #: Longest pause before any attempt.
    max_backoff: float


class ControllerSettings(Section):
    """The MIG Controller and how it is reached."""

    #: Base URL of the controller; plain http only for loopback or with allow_insecure.
    endpoint: str
    #: Whether a plain http endpoint may be one that is not loopback.
    allow_insecure: bool
    #: URL of the HTTP proxy on the way to the controller; null goes straight there. The
    #: runner has its own, runner.proxy.
    proxy: str | None
    auth: AuthSettings
    #: Time within which one request must be answered completely.
    timeout: float
    #: How long the controller may stay unavailable before it has acknowledged the VM
    #: start; 0 waits for ever.
    give_up_after: float
    #: Long-poll time asked of the controller; 0 polls every command_interval instead.
    command_wait: float
    #: Pause between two polls for commands that do not wait.
    command_interval: float
    retry: RetrySettings


class GithubSettings(Section):
    """Where and as what the runner registers."""

    #: GitHub organisation to register with, for token_source: metadata; the runner_url
    #: of a controller's answer decides otherwise.
    org: str | None
    #: Runner group that the controller is asked for; the one in its answer decides, and
    #: without one GitHub's default group. With token_source: metadata, the group to
    #: join.
    runner_group: str
    #: Labels by which workflows choose this runner; labels in the controller's answer
    #: replace them.
    labels: tuple[str, ...]
    #: Where the first registration token comes from.
    token_source: Literal["controller", "metadata"]
    #: Path below the metadata server that holds the registration token, for
    #: token_source: metadata.
    metadata_path: str | None
    #: Time within which config.sh must have registered the runner.
    registration_timeout: float


class RunnerSettings(Section):
    """The official runner and what it may do."""

    #: Folder that the runner is unpacked in.
    directory: str
    #: User that the runner and its jobs run as; null is MIGlet's own user.
    user: str | None
    #: How the runner is kept apart: its own transient systemd unit, its own session, or
    #: whichever the machine offers.
    isolation: Literal["auto", "systemd", "process"]
    #: Whether the runner's user is kept from the cloud's metadata server, by nftables;
    #: auto: if a secret comes from there. A job with sudo or Docker can get round it.
    block_metadata: Literal["auto", True, False]
    #: URL of the HTTP proxy for the runner and its jobs, without user and password,
    #: since every job can read it; null: none.
    proxy: str | None
    #: What follows the one job of an ephemeral runner: the machine's end or a fresh
    #: registration.
    after_job: Literal["shutdown", "register"]
    #: How long a runner may wait for its first job before the machine shuts down; 0 =
    #: for ever.
    idle_timeout: float
    #: How long one job may take before it is stopped; 0 = for ever.
    max_job_duration: float
    #: How long a job may go on after its Listener died; GitHub gives it up after 10
    #: minutes.
    orphan_timeout: float
    #: How long a job may be announced without starting before it counts as a ghost and
    #: the runner is replaced.
    ghost_timeout: float
    #: How long the runner's Worker may live on after its last step's result before it
    #: is killed; 0 = for ever.
    finish_timeout: float
    #: Time within which a started listener must be listening; a session conflict alone
    #: takes 210 s.
    ready_timeout: float
    #: What an idle listener gets to take a job already assigned to it before it is
    #: stopped.
    drain_settle: float
    #: Runner failures in a row after which MIGlet gives up.
    max_restarts: int


class HeartbeatSettings(Section):
    """Signs of life to the controller."""

    #: Time between two heartbeats.
    interval: float
    #: Time without an accepted heartbeat after which the status calls the controller
    #: unreachable.
    timeout: float


class ShutdownSettings(Section):
    """How the machine ends."""

    #: What a runner gets between being asked to stop and being killed.
    grace_period: float
    #: How long a running job may go on after SIGTERM or SIGINT, as by systemctl stop; 0
    #: = stop it at once. A drain has no limit.
    force_after: float
    #: How long undelivered events are tried at the end; what is left then is kept for
    #: the next start, and the exit status is 75.
    delivery_timeout: float
    #: Where undelivered events go at the end as MIGLET-EVENT lines: console
    #: (/dev/console), none, or a file.
    last_resort: str
    #: What MIGlet does to the machine when it has ended.
    action: Literal["none", "poweroff"]


class LoggingSettings(Section):
    """What MIGlet writes on standard output."""

    #: Least severe level that is written.
    level: Literal["debug", "info", "warning", "error"]
    #: JSON lines for machines, or text for people.
    format: Literal["json", "text"]
    #: Whether tokens, keys and passwords are masked in every line.
    redact_secrets: bool


class MetricsSettings(Section):
    """What is measured on the machine."""

    #: Time between two samples of the machine.
    collection_interval: float
    #: Whether samples include the disk.
    include_disk: bool
    #: Whether samples include the network.
    include_network: bool
    #: Address and port on which /metrics, /healthz and /readyz are served; null serves
    #: nothing.
    listen: str | None


class BootstrapSettings(Section):
    """What is checked before the machine announces itself."""

    #: Whether Docker must answer, may be missing, or is not looked for.
    docker: Literal["required", "optional", "off"]
    #: Whether name resolution and connections to the controller and GitHub are checked.
    network: bool
    #: Mount points that must be present and writable.
    mounts: tuple[str, ...]
    #: Free space that the runner's disk must have.
    min_free_disk: int
    #: Time within which all checks must be done.
    timeout: float


class PathsSettings(Section):
    """Where MIGlet keeps its files."""

    #: Folder of the journal; it must outlive a restart.
    state: str
    #: Folder of the control socket and the job's reports.
    runtime: str


class FeaturesSettings(Section):
    """Sources from which jobs are recognised; each may be switched off."""

    #: Whether the runner's job hooks report to MIGlet.
    job_hooks: bool
    #: Whether the runner's _diag logs are read.
    diag_logs: bool
    #: Whether the runner's performance counters are read (RUNNER_PERFLOG).
    perflog: bool


class Settings(Section):
    """Settings of MIGlet, the agent on every machine of a managed instance group."""

    #: Pool of machines that this machine belongs to, as the controller names it.
    pool_id: str
    #: Name of this machine; the cloud's instance id where the machine's metadata has
    #: one.
    vm_id: str
    #: Owner of the pool, as the controller names it; in every event, and never sent to
    #: GitHub.
    org_id: str
    controller: ControllerSettings
    github: GithubSettings
    runner: RunnerSettings
    heartbeat: HeartbeatSettings
    shutdown: ShutdownSettings
    logging: LoggingSettings
    metrics: MetricsSettings
    bootstrap: BootstrapSettings
    paths: PathsSettings
    features: FeaturesSettings


#: The dotted keys that may change while MIGlet runs.
RUNTIME_KEYS = frozenset(
    {
        "controller.timeout",
        "controller.command_wait",
        "controller.command_interval",
        "controller.retry.max_attempts",
        "controller.retry.initial_backoff",
        "controller.retry.max_backoff",
        "runner.after_job",
        "runner.idle_timeout",
        "runner.max_job_duration",
        "runner.orphan_timeout",
        "runner.ghost_timeout",
        "runner.finish_timeout",
        "runner.drain_settle",
        "heartbeat.interval",
        "heartbeat.timeout",
        "shutdown.grace_period",
        "shutdown.force_after",
        "shutdown.delivery_timeout",
        "shutdown.action",
        "logging.level",
        "logging.redact_secrets",
        "metrics.collection_interval",
        "metrics.include_disk",
        "metrics.include_network",
    }
)

#: The least and the greatest value of those of them that are numbers.
RUNTIME_LIMITS = {
    "controller.timeout": (0.05, 600),
    "controller.command_wait": (0, 300),
    "controller.command_interval": (0.05, 3600),
    "controller.retry.max_attempts": (1, 100),
    "controller.retry.initial_backoff": (0.01, 600),
    "controller.retry.max_backoff": (0.01, 3600),
    "runner.idle_timeout": (0, 2592000),
    "runner.max_job_duration": (0, 2592000),
    "runner.orphan_timeout": (0, 2592000),
    "runner.ghost_timeout": (0.05, 3600),
    "runner.finish_timeout": (0, 86400),
    "runner.drain_settle": (0, 600),
    "heartbeat.interval": (0.05, 3600),
    "heartbeat.timeout": (0.05, 86400),
    "shutdown.grace_period": (0, 3600),
    "shutdown.force_after": (0, 2592000),
    "shutdown.delivery_timeout": (0, 2592000),
    "metrics.collection_interval": (0.05, 3600),
}
