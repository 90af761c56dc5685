"""From raw instruction data to the tokenised split: read, recognise, render, tokenise, choose, store."""

from forgetting_core.data.split import split_data

__all__ = ["split_data"]
