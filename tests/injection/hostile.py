"""Values that break missing quotes, and the settings of Hypothesis for their search.

Each contains the word of `PWNED` where a shell, Nginx, systemd or sudo would evaluate it.
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

#: The name of a command that must never be called.
PWNED = "pwned"

#: The same values on every run and every machine.
FIXED = {
    "derandomize": True,
    "database": None,
    "deadline": None,
    "phases": (Phase.explicit, Phase.generate),
    "suppress_health_check": list(HealthCheck),
}


def cases(count: int) -> settings:
    """Return settings for a fixed set of examples."""
    return settings(max_examples=count, **FIXED)  # type: ignore[arg-type]


_SHELL: tuple[str, ...] = (
    "$(pwned)",
    "`pwned`",
    ";pwned;",
    "|pwned",
    "&pwned&",
    "\npwned\n",
    "';pwned;'",
    '";pwned;"',
    "${x:-$(pwned)}",
)
_SHELL += ("'", '"', "\\", "\\\\'", "$PWNED", "$$", "*", "~", "!pwned", "#pwned", "--pwned", "-e", "\r\npwned\r\n")
_HEREDOCS = ("END-OF-THE-PROGRAM", "END-OF-THE-BODY-OF-THIS-STAGE", "END-OF-ROOT", "MANIFEST", "CLEAR")
_SHELL += tuple(f"\n{end}\npwned\n" for end in _HEREDOCS)
_NGINX = ("; pwned on;", "} pwned {", "$pwned", "{", "}", ";")
_SYSTEMD = ("\nExecStart=pwned", "%n%H%%", "\\x20")
_SUDO = (", ALL", "\npwned ALL=(ALL) NOPASSWD: ALL", " ALL=(ALL) ALL")
_TEXTS = ("<pwned>", "{{ pwned }}", "{% pwned %}", "&amp;", "\nBcc: pwned@example.org", "@@end\n", "```", "=", ",", ":")
_CHARACTERS = (
    "\u2028token=pwned",
    "\x85token=pwned",
    "\x0ctoken=pwned",
    "\x1b[2J",
    "\0",
    "\u202e",
    "繁體中文",
    "é",
    "٣",
    "🚀",
)
_PATHS = ("/../", "..", "/", "@", " ", "\t")
FRAGMENTS = (*_SHELL, *_NGINX, *_SYSTEMD, *_SUDO, *_TEXTS, *_CHARACTERS, *_PATHS)

_piece = st.one_of(st.sampled_from(FRAGMENTS), st.sampled_from(_SHELL), st.text(max_size=8))

#: Anything at all, NUL bytes and control characters too.
anything = st.lists(_piece, min_size=1, max_size=4).map("".join)
#: Anything that an argument of a process can contain, also bytes that are not UTF-8, as surrogates.
argument = st.one_of(anything, st.binary(max_size=12).map(lambda raw: raw.decode(errors="surrogateescape"))).map(
    lambda text: text.replace("\0", "")
)


@st.composite
def near(draw: st.DrawFn, *seeds: str) -> str:
    """Draw a valid value, a valid value with an inserted text, or another text."""
    good = draw(st.sampled_from(seeds))
    kind = draw(st.integers(0, 9))
    if kind < 3:
        return good
    text = draw(anything)
    if kind < 5:
        return text
    at = draw(st.sampled_from((0, len(good) // 2, len(good))))
    return good[:at] + text + good[at:]
