"""Values of ``recordings.prefix``: of one day each, and of several days or a part of another day's."""

DAILY = [
    *("in/{date:%Y/%m/%d}/", "in/{date}", "{date:%Y}/in/{date:%m%d}/", "in/{date:%y%m%d}-", "in/{date:%Y/%j}/"),
    *(
        "in/{date:%Y-%m-%-d}/",
        "in/{date:%d%B%Y}/",
        "Anrufe für {date:%d.%m.%Y}/",
        "{date:%Y年%m月%d日}",
        "{date:%G-W%V-%u}/",
    ),
]
NOT_DAILY = [
    *("", "in/", "in/{date:%Y}/", "in/{date:%Y/%m/}", "in/{date:%m/%d}/", "in/{date:%Y}/{date:%B}/", "in/{date:%d}/"),
    *("in/{date:%G/%V}/", "in/{date:%Y/%U}/", "in/{date:%A}/", "in/{date:%y}-", "in/{date:%b%y}", "{date:%Y年%m月}/"),
    # One day's is the beginning of another's.
    *("in/{date:%Y-%m-%-d}", "in/{date:%Y/%-j}", "in/{date:%-m}", "in/{date:%Y%-m%-d}/", "in/{date:%e}"),
]
