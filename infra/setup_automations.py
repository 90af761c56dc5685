"""What the Prefect server does by itself: it tells of failures, and looks after runs that nobody else does.

Where a worker or a whole host is lost, nobody is left who could tell the server, and a self-hosted server does not
ask: the run would keep its state, and its place in the pool, for ever.
"""

from datetime import timedelta

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound

from infra.errors import RequestError

FLOWS = ["forgetting", "sweep", "compare"]
"""Other flows of the server may beat more slowly than ours, or not at all."""
SILENCE = timedelta(seconds=90)
"""Three heartbeats of 30 s (`PREFECT_FLOWS_HEARTBEAT_FREQUENCY` in `prefect.yaml`)"""
BEGIN = timedelta(minutes=10)
"""In which the process that a worker starts has begun its run; it takes some 10 s, more on a busy host."""
HAND_OUT = "forgetting: hand out again what was not begun"
AGAIN = timedelta(minutes=1)
"""A run is not told of twice in this time: where the server fails on an event after it has told, it starts over."""
TELL = "forgetting: tell of failures"
_BEAT, _PENDING, _RUNNING, _CANCELLING = (
    f"prefect.flow-run.{name}" for name in ("heartbeat", "Pending", "Running", "Cancelling")
)
_ENDED = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}


def crash_silent_runs() -> AutomationCore:
    """A run whose process and worker are gone would stay Running."""
    return AutomationCore(
        name="forgetting: crash silent runs",
        description=f"A run that has not beaten for {SILENCE.seconds} s is dead: its state becomes Crashed.",
        trigger=_unless({_BEAT, *_ENDED}, after=_BEAT, within=SILENCE, related=[_our_flows()]),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"no heartbeat for {SILENCE.seconds} s: its process or host is gone; run it again to go on",
            )
        ],
    )


def hand_out_again(within: timedelta = BEGIN) -> AutomationCore:
    """A run whose worker died before its process began would stay Pending: no other worker looks at it.

    One that is handed out although its process still comes is computed once all the same, as leases see to it. Only
    deployed runs: no worker would take another. Only for pools of processes: elsewhere a run may wait for a machine
    or an image as long as it likes.
    """
    return AutomationCore(
        name=HAND_OUT,
        description=f"A run that a worker has taken and not begun {within.seconds} s later is Scheduled again.",
        trigger=_unless(
            # once more Pending: the time begins anew
            {_PENDING, _RUNNING, _BEAT, _CANCELLING, *_ENDED},
            after=_PENDING,
            within=within,
            related=[_our_flows(), ResourceSpecification({"prefect.resource.role": ["deployment"]})],
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.SCHEDULED,
                message=f"not begun {within.seconds} s after a worker took it: another may take it now",
            )
        ],
    )


def tell_of_failures(client: SyncPrefectClient, block: str) -> AutomationCore:
    """Failed and crashed runs are told to `block`, a notification block or a webhook: `type/name`.

    Raises `RequestError` when there is no such block.
    """
    block_type, _, name = block.partition("/")
    try:
        document = client.read_block_document_by_name(name, block_type)
    except ObjectNotFound:
        raise RequestError(
            f"--notify {block}: no such block on the server; expected `type/name`, such as slack-webhook/team;"
            " create it in Prefect's UI under Blocks"
        ) from None
    text = "{{ flow.name }}: the run {{ flow_run.name }} is {{ flow_run.state.name }}: {{ flow_run.state.message }}"
    action = (
        CallWebhook(block_document_id=document.id, payload=text)
        if block_type == "webhook"
        else SendNotification(
            block_document_id=document.id,
            subject="{{ flow.name }}: {{ flow_run.name }} {{ flow_run.state.name }}",
            body=text + "\n{{ flow_run|ui_url }}",
        )
    )
    return AutomationCore(
        name=TELL,
        description=f"Failed and crashed runs are told to the block {block}.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            match=_any_run(),
            match_related=_our_flows(),
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=AGAIN,
        ),
        actions=[action],
    )


def _unless(
    expect: set[str], *, after: str, within: timedelta, related: list[ResourceSpecification]
) -> EventTrigger:
    """Fires for a run of which nothing of `expect` is heard in this time; it has all that is `related`."""
    return EventTrigger(
        after={after},
        expect=expect,
        match=_any_run(),
        match_related=related,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=within,
    )


def _any_run() -> ResourceSpecification:
    return ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]})


def _our_flows() -> ResourceSpecification:
    return ResourceSpecification({"prefect.resource.role": ["flow"], "prefect.resource.name": FLOWS})
