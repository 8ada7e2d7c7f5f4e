"""UTC and Unix time from GPS time, by the leap seconds that astropy's table lists."""

from functools import cache

_DAY = 86_400
_GPS_EPOCH = 44_244
"""Modified Julian date of GPS time 0."""
_UNIX_EPOCH = 40_587
"""Modified Julian date of Unix time 0."""
_TAI_AHEAD_OF_GPS = 19


@cache
def unix_offsets() -> list[tuple[int, int]]:
    """Unix time minus GPS time since each leap second.

    Returns:
        GPS times, s, and the offset that holds from then on, s; in order, from GPS
        time 0 on. A leap second has the Unix times of the second before it.
    """
    # Takes a third of a second.
    from astropy.utils.iers import LeapSeconds

    # The table that is installed with astropy; other ways to open one may download it.
    table = LeapSeconds.from_iers_leap_seconds()
    epochs = (_GPS_EPOCH - _UNIX_EPOCH) * _DAY
    offsets = [(0, epochs)]
    for day, tai_ahead_of_utc in zip(table["mjd"], table["tai_utc"], strict=True):
        days = int(day) - _GPS_EPOCH
        leap_seconds = int(tai_ahead_of_utc) - _TAI_AHEAD_OF_GPS
        if days > 0:
            offsets.append((days * _DAY + leap_seconds - 1, epochs - leap_seconds))
    return offsets


def unix_time(gps_time: float) -> float:
    """Unix time of a GPS time, s; before GPS time 0, without leap seconds."""
    offsets = unix_offsets()
    first = offsets[0][1]
    return gps_time + next(
        (offset for since, offset in reversed(offsets) if gps_time >= since), first
    )
