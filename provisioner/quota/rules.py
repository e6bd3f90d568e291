"""The rules of the quota agent: what to do next for one volume, from what is known of it. Pure.

decide() returns one step at a time. The agent carries it out, looks again and asks again, until the step is Rest. So an
agent that is killed after any step continues where it stopped: all knowledge is in the records, the directory's project
id and the kernel's limits. The order of steps:

    answer with a new id -> no limit while content is labelled -> id on the directory -> id on its content
    -> answer says `whole` -> limit -> answer says the limit

1. An answer holds an id before the id is used, so that no other volume gets it.
2. A limit is set only when all content counts, and is never below the usage: the kernel accepts such a limit, and then
   every write fails while nothing tells the admin why.
3. An answer names a limit only while exactly this limit is in force: before it is lowered, the answer names none.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import structs

from provisioner.core.locations import RelPath
from provisioner.core.quantities import readable
from provisioner.core.quota import Answer, Reason, brief, differs, is_limit, limit_for, stamp
from provisioner.ports.quota import UNUSED, Label, Usage, Walked
from provisioner.quota.ids import Owner
from provisioner.quota.wishes import Wish


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing is left to do until something changes."""


@dataclass(frozen=True, slots=True)
class Await:
    """The directory is about to be created: look again in a moment."""


@dataclass(frozen=True, slots=True)
class Write:
    """Write an answer."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove the answer."""


@dataclass(frozen=True, slots=True)
class SetLabel:
    """Give the directory the project id."""

    path: RelPath
    project: int
    was: Label
    """The project that it had when the step was decided: the step is for no other directory."""


@dataclass(frozen=True, slots=True)
class LabelContent:
    """Give the content of the directory the project id."""

    path: RelPath
    project: int


@dataclass(frozen=True, slots=True)
class SetLimit:
    """Set the limit of a project; 0 lifts it."""

    project: int
    limit_bytes: int


Step = Rest | Await | Write | Forget | SetLabel | LabelContent | SetLimit


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that is known of one volume."""

    wish: Wish | None
    """What its record asks for; None if the record is gone, or its directory now belongs to another volume."""
    answer: Answer | None
    """The answer that is on the disk."""
    is_shared: bool = False
    """Whether another volume has a better right to the answer's id."""
    rival: str = ""
    """A volume that claims the same directory."""
    label: Label | None = None
    """The project of the directory; None if there is no directory at the path."""
    owner: Owner = "unheld"
    """Whose project the label is, if it has one."""
    was_whole: bool = False
    """Whether the former owner's answer says that all content has the label's id."""
    usage: Usage = UNUSED
    """The usage and limit of the answer's project."""
    walked: Walked | None = None
    """What the walk met that this process has finished since the label was set."""
    free_id: int | None = None
    lifts: bool = False
    """Whether the limit is lifted because the volume is an archive now."""
    now: str = ""


def decide(view: View) -> Step:
    """Return the next step for a volume."""
    if view.wish is None:
        return _without_record(view)
    answer = Answer() if view.answer is None or view.is_shared else view.answer
    if not view.wish.size_bytes and not view.wish.why_not:
        return _without_limit(view, answer)
    reason, why = _obstacle(view, view.wish)
    if reason == "missing" and view.wish.pending:
        return Await()
    if reason or view.label is None:
        return _say(view, answer, reason or "missing", why)
    if not answer.project:
        return _choose_id(view, view.label)
    if view.label.project != answer.project or not view.label.inherits or not answer.whole:
        return _make_whole(view, view.wish, answer, view.label)
    return _limit(view, view.wish, answer)


def _without_record(view: View) -> Step:
    """Free the id as soon as nothing has it; until then keep the answer, and so the id."""
    answer = view.answer
    if answer is None:
        return Rest()
    if not answer.project or view.is_shared:
        return Forget()
    if not view.usage.inodes or view.lifts:
        if view.usage.limit_bytes:
            return SetLimit(answer.project, 0)
        if not view.usage.inodes:
            return Forget()
    why = "the volume is gone, and data in the trash, in an archive or behind links still has its project"
    return _say(view, answer, "held", why)


def _without_limit(view: View, answer: Answer) -> Step:
    """Lift a limit that the class no longer asks for; the project id stays, and usage is still reported."""
    if view.answer is None or not answer.project:
        return Forget() if view.answer is not None else Rest()
    if view.usage.limit_bytes:
        return SetLimit(answer.project, 0)
    return _say(view, answer, "not-wanted", "the class of the volume asks for no quota")


def _obstacle(view: View, wish: Wish) -> tuple[Reason, str]:
    """Return why nothing can change for a volume; empty texts if it can."""
    label, directory = view.label, "/".join(wish.path)
    if wish.why_not:
        return "invalid", wish.why_not
    if view.rival:
        return "conflict", f"volume {view.rival} has {directory} too, or a directory above or below it: see `orphans`"
    if label is None:
        return "missing", f"{directory} is not a directory that is reached without symlinks and mount points"
    if label.project and view.owner == "admin":
        return "foreign-project", (
            f"{directory} has the project {label.project}, which is outside the agent's range: remove that project"
            f" (xfs_quota -x -c 'project -C -p DIRECTORY {label.project}'), or enlarge --project-ids"
        )
    return "", ""


def _choose_id(view: View, label: Label) -> Step:
    """Hold an id: the one that the directory has if it can be taken over, or else a free one."""
    if label.project and view.owner in ("unheld", "former", "own"):
        return Write(Answer(project=label.project, whole=view.was_whole, reason="labelling", at=view.now))
    if view.free_id is None:
        why = "all project ids are in use: enlarge --project-ids"
        return _say(view, Answer(), "no-free-id", why)
    return Write(Answer(project=view.free_id, reason="labelling", at=view.now))


def _make_whole(view: View, wish: Wish, answer: Answer, label: Label) -> Step:
    """Give directory and content the id."""
    if answer.whole:  # the directory was changed: the promise ends before anything else
        return Write(structs.replace(answer, whole=False, limit_bytes=0, reason="labelling", why="", at=view.now))
    if view.usage.limit_bytes:  # ext4 does not label a file that is beyond the limit
        return SetLimit(answer.project, 0)
    if label.project != answer.project or not label.inherits:
        return SetLabel(wish.path, answer.project, label)
    if view.walked is None:
        return LabelContent(wish.path, answer.project)
    met = structs.replace(answer, special=view.walked.special, busy=view.walked.busy)
    if view.walked.busy:
        why = f"NFS clients have {view.walked.busy} files open that existed before: the agent tries again"
        return _say(view, met, "busy", why)
    return Write(structs.replace(met, whole=True, why="", at=view.now))


def _limit(view: View, wish: Wish, answer: Answer) -> Step:
    """Set the limit, and then say so."""
    usage, wanted = view.usage, limit_for(wish.size_bytes)
    limit = max(wanted, limit_for(usage.used_bytes))
    if wanted <= usage.limit_bytes < limit:
        limit = usage.limit_bytes  # root can write beyond a limit on ext4: that must not raise it
    if not is_limit(usage.limit_bytes, limit):
        if answer.limit_bytes > limit:
            return Write(structs.replace(answer, limit_bytes=0, reason="lowering", why="", at=view.now))
        return SetLimit(answer.project, limit)
    answer = structs.replace(answer, record=stamp(wish.created))
    if usage.used_bytes > usage.limit_bytes or limit > wanted:
        size, used = readable(wish.size_bytes), readable(usage.used_bytes)
        return _say(view, answer, "overfull", f"the volume holds {used}, and its size is {size}: remove data")
    return _say(view, answer, "", "")


def _say(view: View, answer: Answer, reason: Reason, why: str) -> Step:
    """Write the answer if it says something new."""
    limit = view.usage.limit_bytes if answer.project else 0
    new = structs.replace(
        answer,
        limit_bytes=limit,
        used_bytes=view.usage.used_bytes if answer.project else 0,
        inodes=view.usage.inodes if answer.project else 0,
        reason=reason,
        why=brief(why),
        at=view.now,
    )
    return Write(new) if differs(view.answer, new) else Rest()
