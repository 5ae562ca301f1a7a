"""What earnest survives: seeded campaigns, each some minutes long.

    make campaigns                                        # all, one after another, 120 s each
    python -m benchmarks.campaigns NAME [SECONDS] [SEED]  # kills, disks, damage, races, bombs, folders, fuzz, ranks

A campaign counts what it tried and how it ended, and fails if something was lost or a traceback came. Figures stand in
docs/reliability.md; a quick share of each runs in the tests.
"""
