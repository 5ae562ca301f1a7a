"""Public trainers, one page of data each: whose log is it, what do its numbers mean, which faults are known."""

from earnest.profiles.fingerprint import Match, Recognised, Shown, matches, recognise
from earnest.profiles.profile import NONE, Defect, Logged, Profile, built_on, known_defects, profile, profiles

__all__ = [
    "NONE",
    "Defect",
    "Logged",
    "Match",
    "Profile",
    "Recognised",
    "Shown",
    "built_on",
    "known_defects",
    "matches",
    "profile",
    "profiles",
    "recognise",
]
