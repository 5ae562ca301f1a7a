"""Public trainers, one page of data each: whose log is it, what do its numbers mean, which faults are known."""

from earnest.profiles.fingerprint import Match, Recognised, Shown, matches, recognise
from earnest.profiles.profile import NONE, Logged, Profile, profile, profiles

__all__ = ["NONE", "Logged", "Match", "Profile", "Recognised", "Shown", "matches", "profile", "profiles", "recognise"]
