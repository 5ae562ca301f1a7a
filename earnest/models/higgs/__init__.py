"""Higgs Audio v2: text and audio in one Llama, each with feed-forward networks of its own."""

from earnest.models.higgs.model import Higgs, HiggsShape

__all__ = ["Higgs", "HiggsShape"]
