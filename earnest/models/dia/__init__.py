"""Dia: a byte encoder and a decoder of delayed codebooks."""

from earnest.models.dia.model import Dia, DiaShape, Specials

__all__ = ["Dia", "DiaShape", "Specials"]
