"""Which field of config.json counts which of a base model's lists of layers: an encoder's are none of a decoder's."""

from finetune_trainer.models.config_words import Fields, is_whole

LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
T5S = frozenset({"longt5", "mt5", "t5", "umt5"})
BARTS = frozenset({"bart", "blenderbot", "pegasus"})


def count_of(fields: Fields, layers: str) -> int | None:
    """How many layers config.json says that a list of them has; None where it does not say it."""
    name = field_of(fields, layers)
    return None if name is None else fields[name]


def field_of(fields: Fields, layers: str) -> str | None:
    """The field that counts the layers of a list, as `tensor_names.py` names it."""
    kind, side = fields.get("model_type"), layers.partition(".")[0]
    if kind in BARTS:
        named: tuple[str, ...] = (f"{side}_layers",)
    elif kind in T5S:
        named = ("num_decoder_layers", "num_layers") if side == "decoder" else ("num_layers",)
    else:
        named = LAYERS
    return next((name for name in named if is_whole(fields.get(name))), None)
