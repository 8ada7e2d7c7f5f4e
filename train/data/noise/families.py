"""The families of analytic glitches: their names, and how often each is drawn."""

FAMILIES = ("blip", "tomte", "scattered_light", "koi_fish", "whistle")
"""Each is a function of this name in ``train.data.noise.glitches``."""

WEIGHTS = {"blip": 0.6, "tomte": 0.25, "scattered_light": 0.15}
"""Shares of the families that are drawn unless others are asked for."""
