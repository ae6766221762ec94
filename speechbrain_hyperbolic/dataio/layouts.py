"""Which folder names the speaker.

One rule: a layout is a pattern over paths below the data folder. The first
known layout whose pattern fits the files is taken. Otherwise the speaker is the
first folder, below folders that are named as formats, splits or sexes are
(wav, train, male). If the names allow another reading, the corpus is refused
with both readings; ``speaker_level``, a number or a pattern, then decides.

The id of an utterance begins with its speaker: ``speaker/path below the
speaker's folder``, without extension.
"""

import contextlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from speechbrain_hyperbolic.errors import InputError, shown

_START = "(?:.*/)?"
_KNOWN = [
    (name, re.compile(_START + pattern))
    for name, pattern in {
        "LibriSpeech": r"(?P<speaker>\d+)/(?P<session>\d+)/"
        r"(?P=speaker)-(?P=session)-\d+",
        "LibriTTS": r"(?P<speaker>\d+)/(?P<session>\d+)/"
        r"(?P=speaker)_(?P=session)(?:_\d+){2}",
        "Multilingual LibriSpeech": r"(?P<speaker>\d+)/(?P<session>\d+)/"
        r"(?P=speaker)_(?P=session)_\d+",
        "TIMIT": r"(?i:dr[1-8])/(?P<speaker>(?i:[fm][a-z]{3})\d)/[^/]+",
        "VCTK": r"wav48[^/]*/(?P<speaker>[ps]\d+)/(?P=speaker)_\w+",
        "CN-Celeb": r"(?:data/(?P<speaker>id\d{5})/(?P<session>\w+-\d+)-\d+"
        r"|(?P<trial>(?:eval/)?(?:enroll|test)/id\d{5}-[^/]+))",
        "VoxCeleb": r"(?P<speaker>id\d{5})/(?P<session>[^/]{11})/\d{5}",
        "AISHELL": r"(?P<speaker>S\d{4}|SSB\d{4}|[CDT]\d{4})/"
        r"(?:BAC009|I)?(?P=speaker)W?\d{3,4}",
        "Speech Commands": r"\w+/(?P<speaker>[0-9a-f]{8})_nohash_\d+",
        "CREMA-D": r"(?P<speaker>1\d{3})_[A-Z]{3}_[A-Z]{3}_[A-Z]{2}",
        "THCHS-30": r"(?P<speaker>[A-D]\d{1,2})_\d{1,3}",
        "ST-CMDS": r"(?P<speaker>\d{8}P\d{5})[AI]\d{4}",
        "JVS": r"(?P<speaker>jvs\d{3})/.+",
    }.items()
]
_FITS = 0.9  # of all files; the others are left out and listed

_FORMAT = (
    r"wavs?|wav\d+\w*|flac|aac|m4a|ogg|opus|mp3|audios?|audiowav|data|"
    r"clips|speech(?:data)?|recordings|speakers?|corpus|dataset|raw|wave|vox\d\w*"
)
_SPLIT = (
    r"(?:train|training|test|testing|dev|devel|development|val|valid|"
    r"validation|eval|evaluation|enroll|enrollment)"
    r"(?:[-_ .]?(?:set|clean|other|data|wav|aac|part|[a-d]|\d+))*"
)
_SEX = "males?|females?|men|women|boys?|girls?"
# Of Common Voice and others, as en and zh-CN
_LANGUAGE = re.compile(
    r"(?i)english|german|french|spanish|mandarin|chinese|hindi|(?:ar|ca|cs|de|"
    "el|en|es|eu|fa|fi|fr|hi|hu|id|it|ja|ko|nl|pl|pt|ro|ru|sv|ta|th|tr|uk|vi|"
    r"zh)(?:[-_][a-z]{2})?"
)
_CONTAINER = re.compile(f"{_FORMAT}|{_SPLIT}|{_SEX}", re.IGNORECASE)
_SAME_PEOPLE = re.compile(f"{_FORMAT}|{_SPLIT}", re.IGNORECASE)
_SPEAKER = re.compile(
    r"(?:id|spk|spkr|speaker|actor|subject|subj|sub|user|person|child|talker|"
    r"voice|client)[-_ ]?\d+\w*",
    re.IGNORECASE,
)
_SESSION = re.compile(
    r"(?:s|ses|sess|session|rec|recording|chapter|day|take|visit|part|video|"
    r"call|conv|conversation|round|mic|ch|channel|phone|disc|book|meeting|set)"
    rf"[-_ ]?\d*[a-z]?|(?:19|20)\d\d(?:[-_.]?\d\d[-_.]?\d\d.*)?|{_FORMAT}",
    re.IGNORECASE,
)
_NUMBERED = re.compile(rf"{_SPEAKER.pattern}|[a-z]{{0,3}}\d+\w*", re.IGNORECASE)
_HEAD = re.compile("(?:.*/)?([^-_. /]+)[-_. ][^/]*")  # ann of ann_1
# A person with a session or a style: ann_day1, ann-20200102, ann_angry
_SUFFIXED = re.compile(
    rf"(?i)(.+?)[-_. ](?!{_SPEAKER.pattern})"
    r"(?:(?:19|20)\d\d\D?\d\d\D?\d\d.*|([a-z]{3,})[-_]?\d*)"
)
_VIDEO = re.compile(r"(?=.*[A-Z\d_-])[\w-]{11}")  # an id of YouTube
_Depth = dict[tuple[str, ...], int]  # a path's folders -> level of the speaker


class Place(NamedTuple):
    """What a file's path says."""

    speaker: str
    session: str
    prefix: str  # folders above the speaker
    rest: str  # the path below the speaker's folder, without extension
    for_trials: bool = False  # not for training, by the corpus's own layout


def is_container(folder: str) -> bool:
    """Whether a folder's name is that of a format, a split or a sex."""
    return _CONTAINER.fullmatch(folder) is not None


def find_layout(
    files: list[str], speaker_level: int | str | None, where: str
) -> tuple[str, list[Place | None]]:
    """The layout's name and the place of each file, None for one left out.

    ``files`` are paths below the data folder, without extension.
    """
    if speaker_level is not None:
        pattern = _compile(speaker_level)
        found = [_place(pattern.search(name)) for name in files]
        if not any(found):
            raise InputError(
                f"{where}: speaker_level {speaker_level} fits no file, such as "
                f"{shown(files[0])}: it is a number of folders, or a pattern "
                r"with one group, e.g. '([^/]+)/[^/]+$'"
            )
        return f"speaker_level {speaker_level}", found
    sample = files[:: max(1, len(files) // 50)]
    for title, pattern in _KNOWN:
        if sum(map(bool, map(pattern.fullmatch, sample))) >= (
            _FITS * len(sample)
        ):
            found = [_place(pattern.fullmatch(name)) for name in files]
            if sum(map(bool, found)) >= _FITS * len(files):
                return title, found
    return _plain(files, where)


def _compile(speaker_level: int | str) -> re.Pattern:
    text = str(speaker_level)
    if text.isdecimal() and int(text) > 0:
        text = rf"^(?:[^/]+/){{{int(text) - 1}}}(?P<speaker>[^/]+)/"
    with contextlib.suppress(re.error):
        pattern = re.compile(text)
        if pattern.groups == 1 or "speaker" in pattern.groupindex:
            return pattern
    raise InputError(
        f"speaker_level is {shown(text)!r}, expected the number of a folder, "
        "or a pattern with one group"
    )


def _place(match: re.Match | None) -> Place | None:
    if match is None:
        return None
    named = match.groupdict()
    name = match.string
    if trial := named.get("trial"):  # eval/test/id00800-..., eval/enroll/...
        folder, _, stem = trial.removeprefix("eval/").partition("/")
        return Place(stem.split("-")[0], "", "", f"{folder}/{stem}", True)
    group = "speaker" if "speaker" in named else 1
    speaker, (start, end) = match[group], match.span(group)
    if not speaker:
        return None
    of_folder = name[end : end + 1] == "/" and name[start - 1 : start] in "/"
    if not of_folder or "/" in speaker:  # a part of a name, or two folders
        speaker = speaker.replace("/", "-")
        return Place(speaker, named.get("session") or "", "", name)
    rest = name[end + 1 :]
    session = named.get("session") or rest.rpartition("/")[0]
    return Place(speaker, session, name[:start].rstrip("/"), rest)


def _plain(files: list[str], where: str) -> tuple[str, list[Place | None]]:
    """The first folder that is no container."""
    folders = dict.fromkeys(name.rpartition("/")[0] for name in files)
    # How many folders are above the speaker, who is a folder too
    paths = [tuple(folder.split("/")) for folder in folders if folder]
    depth = {folder: _containers(folder) for folder in paths}
    if not depth:
        raise InputError(
            f"{where} has {len(files)} audio files and no folders: expected "
            "speaker/[session/]utterance; name the speakers by a list (CSV "
            "with path and speaker), or by speaker_level and a pattern such as "
            "'^([^_]+)_'"
        )
    heads = {match and match[1] for match in map(_HEAD.fullmatch, files)}
    why = (
        _why_not_beside(depth)
        or _why_no_sessions(depth, heads)
        or _why_suffixed(depth)
        or _why_prefixed(depth)
    )
    if why:
        raise InputError(
            f"{where}: which folder is the speaker? {why}: {_readings(depth)}: "
            "pass one of these, a pattern with one group as --speaker_level, "
            "or a list (CSV with path and speaker) as the data folder"
        )

    def place(name: str) -> Place | None:
        *folder, stem = name.split("/")
        if not folder:
            return None
        level = depth[tuple(folder)]
        prefix, session = "/".join(folder[:level]), folder[level + 1 :]
        rest = "/".join([*session, stem])
        return Place(folder[level], "/".join(session), prefix, rest)

    found = [place(name) for name in files]
    above = sorted({place.prefix for place in found if place} - {""})
    title = "speaker/[session/]utterance"
    return (f"{title} below {', '.join(above)}" if above else title), found


def _containers(folder: tuple[str, ...]) -> int:
    """How many of a path's folders, but the last, are containers."""
    speakers = (
        level
        for level, name in enumerate(folder[:-1])
        if not is_container(name)
    )
    return next(speakers, len(folder) - 1)


def _why_not_beside(depth: _Depth) -> str:
    """A speaker beside folders of speakers, unless the latter are speakers
    with sessions too (who happen to be called data, or Val).
    """
    for level in range(max(depth.values())):
        deep = [f for f in depth if depth[f] > level]
        beside = [f for f in depth if depth[f] <= level < len(f)]
        sessions = {f[level + 1] for f in beside if len(f) > level + 1}
        if not deep or not beside:
            continue
        if not {f[level + 1] for f in deep} <= sessions:
            return f"{deep[0][level]} stands beside {beside[0][level]}"
        depth.update(dict.fromkeys(deep, level))
    if all(is_container(folder[level]) for folder, level in depth.items()):
        return "no folder has the name of a speaker"
    return ""


def _why_no_sessions(depth: _Depth, heads: set[str | None]) -> str:
    """Folders in folders that may be speakers as well as sessions."""
    below = defaultdict(set)  # speaker -> folders in it
    for folder, level in depth.items():
        inner = [name for name in folder[level + 1 :] if not is_container(name)]
        if inner:
            below[folder[level]].add(inner[0])
    names = set().union(*below.values())
    speakers = {folder[level] for folder, level in depth.items()}
    repeat = sum(map(len, below.values())) > len(names)
    known = _all(_SESSION, names) or (
        _all(_SPEAKER, below) and not _all(_SPEAKER, names)
    )
    plausible = (
        (repeat and all(map(str.isdecimal, names)))
        or _all(_VIDEO, names)
        or heads <= speakers
        or (len(names) < len(speakers) and _all(_NUMBERED, below))
    )
    other = _all(_SESSION, below) or heads <= names
    sure = known or (plausible and not other)
    if sure and not _all(_LANGUAGE, speakers):
        return ""
    return "these folders may be speakers or groups of them"


def _why_suffixed(depth: _Depth) -> str:
    """Folders for the sessions of one person: ann_day1, ann_day2."""
    names = {folder[level] for folder, level in depth.items()}
    found = [m for m in map(_SUFFIXED.fullmatch, sorted(names)) if m]
    people = Counter(match[1] for match in found)
    kinds = {match[2] for match in found}
    if 1 < len(people) < len(found) and 2 * len(kinds) <= len(found):
        why = "{} may be one person with {} folders"
        return why.format(*people.most_common(1)[0])
    return ""


def _why_prefixed(depth: _Depth) -> str:
    """A man and a woman of one name are not one speaker."""
    groups = defaultdict(set)
    for folder, level in depth.items():
        above = [p for p in folder[:level] if not _SAME_PEOPLE.fullmatch(p)]
        groups[folder[level]].add("/".join(above) or ".")
    for speaker, several in groups.items():
        if len(several) > 1:
            first, second, *_ = sorted(several)
            return f"{shown(speaker)} is below {first} and below {second}"
    return ""


def _all(pattern: re.Pattern, names: Iterable[str]) -> bool:
    return all(map(pattern.fullmatch, names))


def _readings(folders: Iterable[tuple[str, ...]]) -> str:
    """The readings of the first levels, with their counts."""
    readings = []
    for level in range(3):
        names = sorted({f[level] for f in folders if len(f) > level})
        if names:
            some = ", ".join(map(shown, names[:3]))
            more = ", ..." if len(names) > 3 else ""
            readings.append(
                f"--speaker_level={level + 1}: {len(names)} speakers "
                f"({some}{more})"
            )
    return "; ".join(readings)
