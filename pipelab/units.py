"""How numbers are written: MB is 10^6 bytes everywhere, three significant digits."""

import math

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def _scaled(value: float) -> tuple[str, str]:
    for factor, prefix in _PREFIXES:
        # 999.95 k would print as "1000 k": step up one prefix earlier than the exact limit.
        if abs(value) >= factor * 0.9995:
            scaled = value / factor
            digits = 0 if abs(scaled) >= 99.95 else 1 if abs(scaled) >= 9.995 else 2
            return f"{scaled:.{digits}f}", prefix
    return f"{value:.0f}", ""


def format_bytes(num_bytes: float) -> str:
    """Bytes as text.

    Example:
        >>> format_bytes(409_600), format_bytes(497_759_232), format_bytes(12)
        ('410 kB', '498 MB', '12 B')
    """
    text, prefix = _scaled(num_bytes)
    return f"{text} {prefix}B"


def format_whole(num_bytes: float) -> str:
    """What a device has, as people say it.

    Example:
        >>> format_whole(80e9), format_whole(1.5e9)
        ('80 GB', '1.50 GB')
    """
    text, _, unit = format_bytes(num_bytes).partition(" ")
    whole, _, rest = text.partition(".")
    return f"{text if rest.strip('0') else whole} {unit}"


def format_count(count: float) -> str:
    """A number of things (parameters, FLOPs) as text.

    Example:
        >>> format_count(124_439_808), format_count(272)
        ('124 M', '272')
    """
    text, prefix = _scaled(count)
    return f"{text} {prefix}".rstrip()


def format_seconds(seconds: float) -> str:
    """A duration as text.

    Example:
        >>> format_seconds(0.0123), format_seconds(2.5), format_seconds(3e-5)
        ('12.3 ms', '2.50 s', '30.0 µs')
    """
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(seconds) >= factor * 0.9995 or unit == "µs":
            scaled = seconds / factor
            digits = 0 if abs(scaled) >= 99.95 else 1 if abs(scaled) >= 9.995 else 2
            return f"{scaled:.{digits}f} {unit}"
    raise AssertionError("unreachable")


def format_percent(share: float, digits: int = 0) -> str:
    r"""A share as text; no line breaks before the sign.

    Example:
        >>> format_percent(0.43), format_percent(0.0314, 1)
        ('43\xa0%', '3.1\xa0%')
    """
    return f"{100 * share:.{digits}f}\u00a0%"


def format_need(num_bytes: float, capacity: float) -> str:
    """What is needed of what there is, in the unit of the latter; rounded apart, so that it never seems to fit.

    Example:
        >>> format_need(91.2e9, 80e9), format_need(1.251e9, 1.25e9)
        ('92 of 80 GB', '1.3 of 1.2 GB')
    """
    factor, unit = next(((f, u) for f, u in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if capacity >= f), (1.0, "B"))
    digits = 1 if capacity < 10 * factor and factor > 1 else 0
    scale = 10**digits
    needed, there = math.ceil(num_bytes / factor * scale) / scale, math.floor(capacity / factor * scale) / scale
    return f"{needed:.{digits}f} of {there:.{digits}f} {unit}"


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    Example:
        >>> plural(1, "stage"), plural(2, "micro-batch"), plural(3, "process")
        ('1 stage', '2 micro-batches', '3 processes')
    """
    ending = "" if count == 1 else "es" if noun.endswith(("ch", "s")) else "s"
    return f"{count:,} {noun}{ending}"


def format_spread(seconds: float, low_s: float, high_s: float) -> str:
    """The range around a duration in the unit and with the digits `format_seconds` gives it; empty if it rounds away.

    Example:
        >>> format_spread(0.0123, 0.0121, 0.0129), format_spread(2.5, 2.499, 2.501)
        ('12.1 to 12.9', '')
    """
    number, unit = format_seconds(seconds).split()
    digits = len(number.partition(".")[2])
    low, high = (f"{value / _SECONDS_OF[unit]:.{digits}f}" for value in (low_s, high_s))
    return "" if low == high else f"{low} to {high}"


_SECONDS_OF = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}
