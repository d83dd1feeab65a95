"""What recordings say happened to a group: its generations, their owners, and the refusals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Final

from ksim.after.cast import begun_within
from ksim.after.clocks import Clocks
from ksim.after.lives import Life, joins_of, round_of, syncs_of
from ksim.core import messages as m
from ksim.core.errors import error_name
from ksim.core.subscription import MalformedProtocolError, decode_assignment

OF_GENERATION: Final = " of generation "
KINDS = (m.FindCoordinatorRequest, *m.GROUP_REQUESTS)


@dataclass(frozen=True, slots=True)
class Generation:
    """One round: its number, who was told of it, and what each of them was given."""

    group_id: str
    number: int
    owners: tuple[tuple[str, tuple[str, ...]], ...]

    def __str__(self) -> str:
        shares = (f"{name}: {' '.join(given) or '-'}" for name, given in self.owners)
        return f"generation {self.number} of {self.group_id} ({'; '.join(shares)})"


@dataclass(frozen=True, slots=True)
class Story:
    """Generations in their order, and of each life what its requests of each kind were refused."""

    generations: tuple[Generation, ...]
    refusals: Mapping[str, tuple[str, ...]]


def story_of(
    lives: Sequence[Life], clocks: Clocks, names: Mapping[str, str], until_ms: int | None = None
) -> Story:
    """By the names of `names`; what is later than `until_ms` of the first clock is left out."""
    rounds: dict[tuple[str, int, int, str], dict[str, tuple[str, ...]]] = defaultdict(dict)
    firsts: dict[tuple[str, int, int, str], int] = {}
    refusals: dict[str, tuple[str, ...]] = {}
    for at, life in enumerate(lives):
        name, shift_ms = names[life.name], clocks.likely(0, at)
        end_ms = None if until_ms is None else until_ms - shift_ms
        for joined in joins_of(life):
            if end_ms is None or joined.told_ms <= end_ms:
                made, told_ms = round_of(joined), joined.told_ms + shift_ms
                firsts[made] = min(firsts.get(made, told_ms), told_ms)
                rounds[made].setdefault(name, ())
        for made, each in syncs_of(life):
            granted = isinstance(each.response, m.SyncGroupResponse) and each.error_code == 0
            if granted and (end_ms is None or (each.ended_ms or 0) <= end_ms):
                assert isinstance(each.response, m.SyncGroupResponse)
                rounds[made][name] = _given(each.response.assignment)
        for kind, said in _refusals(life, end_ms).items():
            refusals[f"{kind} of {name}"] = said
    order = sorted(firsts, key=lambda made: (firsts[made], made))
    generations = (
        Generation(made[0], made[1], tuple(sorted(rounds[made].items()))) for made in order
    )
    return Story(tuple(generations), refusals)


def _given(assignment: bytes) -> tuple[str, ...]:
    try:
        return tuple(map(str, decode_assignment(assignment)))
    except MalformedProtocolError:
        return ("?",)


def _refusals(life: Life, end_ms: int | None) -> dict[str, tuple[str, ...]]:
    """By kind of request, with the generation that it was for."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for each in life.exchanges:
        if not isinstance(each.request, KINDS) or each.response is None or each.ended is None:
            continue
        if end_ms is not None and (each.ended_ms or 0) > end_ms:
            continue
        parts = (p.error_code for p in getattr(each.response, "partitions", ()))
        whole = each.error_code
        code = whole or next((part for part in parts if part), 0)
        if code:
            kind = type(each.request).__name__.removesuffix("Request")
            generation_id = getattr(each.request, "generation_id", -1)
            of = "" if generation_id < 0 else f"{OF_GENERATION}{generation_id}"
            found[kind].append((each.ended, f"{error_name(code)}{of}"))
    return {kind: _once([text for _, text in sorted(said)]) for kind, said in found.items()}


def _once(texts: Sequence[str]) -> tuple[str, ...]:
    """How often the same comes again depends on how quickly it is asked again."""
    return tuple(text for at, text in enumerate(texts) if at == 0 or texts[at - 1] != text)


def begun_before(
    lives: Sequence[Life], names: Mapping[str, str], recorded: Story
) -> dict[str, frozenset[str]]:
    """Groups whose recordings all begin in the middle, with the names of their members."""
    since: dict[str, int] = {}
    for life in filter(begun_within, lives):
        generation_id = life.state.generation_id
        since[life.group_id] = min(since.get(life.group_id, generation_id), generation_id)
    for each in recorded.generations:
        if each.number <= since.get(each.group_id, -1):
            del since[each.group_id]  # another recording has how it began
    return {
        group_id: frozenset(names[life.name] for life in lives if life.group_id == group_id)
        for group_id in since
    }


def as_late(story: Story, recorded: Story, begun: Mapping[str, frozenset[str]]) -> Story:
    """What of a run can be compared with recordings of groups that were there before.

    The run has to make each group first: of that as many are left out as the recordings do not
    have, and generations are numbered as theirs, from the last.
    """
    generations, refusals = list(story.generations), dict(story.refusals)
    for group_id, members in begun.items():
        own = [each for each in story.generations if each.group_id == group_id]
        wanted = [each for each in recorded.generations if each.group_id == group_id]
        by = wanted[-1].number - own[-1].number if own and wanted else 0
        late = own[len(own) - len(wanted) :] if len(own) > len(wanted) else own
        generations = [each for each in generations if each.group_id != group_id]
        generations += [replace(each, number=each.number + by) for each in late]
        for key in [key for key in refusals if key.partition(" of ")[2] in members]:
            said, most = refusals[key], len(recorded.refusals.get(key, ()))
            refusals[key] = tuple(_moved(text, by) for text in said[max(0, len(said) - most) :])
    return Story(tuple(generations), refusals)


def _moved(text: str, by: int) -> str:
    head, of, number = text.partition(OF_GENERATION)
    return f"{head}{of}{int(number) + by}" if of else text


def distance(one: Story, other: Story) -> tuple[int, int]:
    """How many generations, and how many refusals, are in one of the two alone."""
    apart = _apart(one.generations, other.generations)
    lives = sorted({*one.refusals, *other.refusals})
    refusals = (_apart(one.refusals.get(n, ()), other.refusals.get(n, ())) for n in lives)
    return apart, sum(refusals)


def _apart(one: Sequence[object], other: Sequence[object]) -> int:
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    same = sum(block.size for block in matcher.get_matching_blocks())
    return len(one) + len(other) - 2 * same


def first_apart(one: Story, other: Story) -> str:
    """A sentence for the first place where the second is not as the first."""
    for at in range(max(len(one.generations), len(other.generations))):
        mine = one.generations[at] if at < len(one.generations) else "nothing"
        yours = other.generations[at] if at < len(other.generations) else "nothing"
        if mine != yours:
            return f"recorded {mine}, simulated {yours}"
    for name in sorted({*one.refusals, *other.refusals}):
        ours, theirs = one.refusals.get(name, ()), other.refusals.get(name, ())
        if ours != theirs:
            at = next(
                (n for n, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]),
                min(len(ours), len(theirs)),
            )
            mine = ours[at] if at < len(ours) else "nothing"
            yours = theirs[at] if at < len(theirs) else "nothing"
            return f"refusal {at + 1} of {name}: recorded {mine}, simulated {yours}"
    return "nothing"
