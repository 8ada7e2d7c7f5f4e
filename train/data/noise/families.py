"""Names and default weights of the families of analytic glitches."""

FAMILIES = ("blip", "tomte", "scattered_light", "koi_fish", "whistle")
"""Names of the functions in ``train.data.noise.glitches`` that draw their waveforms."""

WEIGHTS = {"blip": 0.6, "tomte": 0.25, "scattered_light": 0.15}
"""Default relative rate of each family; families that are missing are not drawn."""
