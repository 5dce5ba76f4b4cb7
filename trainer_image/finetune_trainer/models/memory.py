"""Estimates a device's memory for training from the model's shape alone, and how large a forward pass may be.

    weights      frozen and trained, as stored in memory; 4-bit ones with their scales; with sharding this rank's
                 part, and the layers that are currently gathered
    adapters     LoRA's own weights, float32
    gradients    float32, of the trained weights
    optimizer    AdamW's two moments, float32
    activations  what a forward pass keeps for its backward pass, the logits, and autocast's 16-bit copies
    overhead     workspace of kernels; on a CPU the interpreter with its libraries, kernels compiled for this job, and
                 fragmentation in the C library's allocator

Measures nothing and knows neither devices nor datasets: `memory_fit.py` does. The error compared with real peaks is in
bench/results/memory.md; a job for which the estimate is too low ends as OutOfMemory with a next step.
"""

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Literal

from finetune_api.job import LoRA, Method
from finetune_trainer.models.model_shape import Matrix, ModelShape, Norm

Device = Literal["GPU", "CPU"]

CPU_TOKENS = 512
"""Tokens of a pass. On a CPU larger passes gain nothing and cost memory."""

PARALLEL_CPU_TOKENS = 768
"""The same for passes that are computed in parallel, of which a step has an even number of like sizes."""

GPU_TOKENS = 16384
"""Tokens of a pass. On a GPU larger passes gain nothing."""

_USABLE = 0.8
"""Fraction of the memory to use for passes; the rest allows for fragmentation in the allocator."""

_FLOAT32 = 4
_FOUR_BITS = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of an NF4 number with its share of the scales: one byte per 64 numbers, and one float32 per 256 of those."""

_LOGITS = 12
"""Bytes per logit while the gradient is computed: three float32 copies."""

_SCORES = 8
"""Bytes per pair of positions that attention with soft-capping keeps, in each block and head."""

_DROPPED_SCORES = 12
"""The same for attention with dropout on a CPU, as in T5 and GPT-2: there is no fused kernel for it."""

_SCALED = 2
"""Extra copies of queries and keys that such attention keeps: scaled ones."""

_DORA = 2.2
"""Outputs of a layer that DoRA keeps: those of the base and the adapter, and the scaled ones."""

_MASK: dict[Device, int] = {"GPU": 1, "CPU": 4}
"""Bytes per entry of a dropout mask."""

_UNCERTAIN = 1.5
"""Safety factor for architectures that are not fully known."""

_OVERHEAD: dict[Device, int] = {"GPU": 96 * 2**20, "CPU": 870 * 2**20}

_COMPILED = 72 * 2**20
"""oneDNN's compiled 16-bit matrix products on a CPU, one for each size of a pass (`torch_settings.py`)."""

_QUANTISER = 150 * 2**20
"""4-bit weights on a CPU: bitsandbytes, and the 32-bit copies that it makes."""

_QUANTISING = 3
"""Bytes per number while a model is loaded in 4 bits on a CPU, which also holds it in 16 bits."""

_GAPS = 0.35
"""Fragmentation on a CPU, relative to the activations: gaps between blocks that fit no other block."""

_UNFUSED_GELU = frozenset({"gelu_new", "gated-gelu", "gelu_pytorch_tanh_python"})


@dataclass(frozen=True)
class Setup:
    """The parts of a job that determine its memory."""

    method: Method
    adapters: LoRA | None
    compute_bytes: int
    """Bytes of the numbers in matrix products: 2 or 4."""
    device: Device
    shards: int = 1
    """Number of ranks that share the model; 1: each holds all of it."""


@dataclass(frozen=True)
class Rows:
    """What memory depends on in the data."""

    longest: int
    """Tokens."""
    mean: float
    labelled: float
    """Fraction of the tokens that carry loss."""
    per_step: int
    """Rows of one optimizer step."""
    per_pass: int | None = None
    """Rows of one pass, if set by the job."""
    texts: int = 1
    """Texts per row: two for preference pairs, whose tokens are added."""


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass."""

    tokens: int
    """Including padding."""
    checkpointing: bool
    """Whether activations are recomputed in the backward pass instead of being kept."""
    at_once: int = 1
    """Number of such passes that run in parallel."""


@dataclass(frozen=True)
class Fit:
    """The chosen size of passes."""

    token_budget: int
    activation_checkpointing: bool
    at_once: int = 1
    """Number of passes that run in parallel, if the model allows it."""


@dataclass(frozen=True)
class Parts:
    """Bytes by purpose."""

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    overhead: int

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return sum(int(getattr(self, field.name)) for field in fields(self))

    @property
    def fixed(self) -> int:
        """Bytes that do not depend on the size of passes."""
        return self.total - self.activations


@dataclass(frozen=True)
class Need:
    """The memory of a run as a function of the size of its passes."""

    shape: ModelShape
    setup: Setup
    rows: Rows

    def parts(self, one: Pass) -> Parts:
        """Bytes at the peak of a step with passes like this one.

        The peak of a pass is when the logits' gradient and all activations are in memory. Afterwards, gradients of
        weights replace activations that are no longer needed. Both are in memory at once only if a step has several
        passes; and on a CPU, where the gradient of a large matrix does not fit into the gaps left by activations.
        """
        held, kept = self._held, self._activations(one)
        if one.at_once > 1:
            kept += (one.at_once - 1) * self._activations(self._parallel_pass(one))
        pass_gradients = one.at_once if one.at_once > 1 else 0  # kept until they are added to the step's in order
        gradients = _FLOAT32 * held * (1 + pass_gradients) + self._gathered_gradients
        several = one.tokens < self.rows.per_step * self.rows.mean
        if self.setup.adapters is None and not several and self.setup.device == "GPU":
            kept = max(0, kept - gradients)
        parts = Parts(
            weights=self._weights // self.setup.shards + self._gathered_weights,
            adapters=_FLOAT32 * held if self.setup.adapters else 0,
            gradients=gradients,
            optimizer=2 * _FLOAT32 * held,
            activations=int(kept),
            overhead=self._overhead(kept, several=several),
        )
        return replace(parts, overhead=parts.overhead + max(0, self._loading - parts.total))

    @property
    def _loading(self) -> int:
        """The peak of loading, if it may exceed that of training."""
        quantised_here = self.setup.method == "QLoRA" and self.setup.device == "CPU"
        return _OVERHEAD["CPU"] + _QUANTISING * self.shape.parameters if quantised_here else 0

    def _overhead(self, kept: float, *, several: bool) -> int:
        """Memory that is not itemized; `kept` is the size of the activations.

        On a CPU that includes much of the process. When training a whole model, two gradients of the embedding wait
        to be added: the head's and its own, and those of another pass.
        """
        if self.setup.device == "GPU":
            return _OVERHEAD["GPU"]
        waiting = 0 if self.setup.adapters else 2 if several else 1
        embedding = waiting * _FLOAT32 * self.shape.vocabulary * self.shape.hidden
        compiled = _COMPILED if self._autocasts else 0
        quantiser = _QUANTISER if self.setup.method == "QLoRA" else 0
        return _OVERHEAD["CPU"] + int(_GAPS * kept) + compiled + quantiser + embedding

    @property
    def smallest(self) -> Pass:
        """The smallest possible pass: one row, or as many as the job asks for."""
        return Pass((self.rows.per_pass or 1) * self.rows.longest, checkpointing=True)

    def expected(self, fit: Fit) -> Pass:
        """The largest pass of a typical step with this fit."""
        if self.rows.per_pass:
            return Pass(self.rows.per_pass * self.rows.longest, fit.activation_checkpointing)
        step_tokens = math.ceil(1.5 * self.rows.per_step * self.rows.mean)  # including padding
        largest = self._largest_of_even_passes(fit.token_budget) if fit.at_once > 1 else step_tokens
        most = min(fit.token_budget, largest, self.rows.per_step * self.rows.longest)
        return Pass(max(self.rows.longest, most), fit.activation_checkpointing, fit.at_once)

    def fit(self, available: int | None, threads: int = 1) -> Fit:
        """The largest passes that fit into `available` bytes (None: unknown, assumed to be sufficient).

        Activation checkpointing is enabled only if the smallest pass does not fit without it. On a CPU, up to `threads`
        passes run in parallel, as far as memory allows.
        """
        if self.setup.device == "CPU":
            return self._fit_on_cpu(available, threads)
        if available is None:
            return Fit(GPU_TOKENS, activation_checkpointing=False)
        usable = int(_USABLE * available)
        checkpointing = self.parts(Pass(self.smallest.tokens, checkpointing=False)).total > usable
        return Fit(self._budget(usable, checkpointing=checkpointing), checkpointing)

    def _fit_on_cpu(self, available: int | None, threads: int) -> Fit:
        """The size of passes must not depend on threads or memory: results would differ in their last bits."""
        if not self._can_run_in_parallel:
            return Fit(CPU_TOKENS, activation_checkpointing=False)
        one = Fit(PARALLEL_CPU_TOKENS, activation_checkpointing=False)
        step_passes = even_passes(math.ceil(self.rows.per_step * self.rows.mean), one.token_budget)
        for at_once in range(min(threads, step_passes, self.rows.per_step), 1, -1):
            several = replace(one, at_once=at_once)
            if available is None or self.parts(self.expected(several)).total <= _USABLE * available:
                return several
        return one

    def _largest_of_even_passes(self, tokens: int) -> int:
        """Tokens of the largest pass of a typical step that is cut into an even number; more if lengths differ."""
        rows = self.rows
        number = even_passes(math.ceil(rows.per_step * rows.mean), tokens)
        return math.ceil(math.ceil(rows.per_step / number) * rows.mean * min(1.5, rows.longest / rows.mean))

    def _parallel_pass(self, one: Pass) -> Pass:
        """A pass that runs in parallel with the largest one: a full one, or one average row."""
        return replace(one, tokens=min(one.tokens, max(PARALLEL_CPU_TOKENS, math.ceil(self.rows.mean))))

    @property
    def _can_run_in_parallel(self) -> bool:
        """Whether passes may run in parallel. Not with gradients of a whole model (too large), nor with dropout."""
        lora, shape = self.setup.adapters, self.shape
        plain = lora is not None and self.setup.method == "LoRA" and not lora.dropout
        return plain and not shape.dropout and not shape.is_encoder_decoder and self.rows.per_pass is None

    def _budget(self, usable: int, *, checkpointing: bool) -> int:
        low, high = 1, GPU_TOKENS
        while low < high:
            middle = (low + high + 1) // 2
            if self.parts(Pass(middle, checkpointing)).total <= usable:
                low = middle
            else:
                high = middle - 1
        return low

    @cached_property
    def _targets(self) -> tuple[Matrix, ...]:
        """Linear layers that get adapters."""
        lora = self.setup.adapters
        if lora is None:
            return ()
        if isinstance(lora.targets, str):
            return self.shape.linear
        ends = tuple(f".{name}" for name in lora.targets)
        return tuple(one for one in self.shape.linear if f".{one.path}".endswith(ends))

    @cached_property
    def _trained(self) -> int:
        """Number of trained parameters: all, or r x (inputs + outputs) per adapter, and DoRA's magnitudes."""
        lora = self.setup.adapters
        if lora is None:
            return self.shape.parameters
        magnitudes = sum(one.outputs for one in self._targets) if lora.use_dora else 0
        return magnitudes + sum(lora.r * (one.inputs + one.outputs) for one in self._targets)

    @property
    def _held(self) -> int:
        """Trained parameters of one rank: adapters are never sharded."""
        return self._trained if self.setup.adapters else math.ceil(self._trained / self.setup.shards)

    @property
    def _gathered(self) -> int:
        """Parameters gathered on top of a rank's own part: a block, the next one, and everything outside blocks."""
        if self.setup.shards == 1:
            return 0
        shape = self.shape
        outside = min(shape.parameters - shape.linear_parameters, 2 * shape.vocabulary * shape.hidden)
        return outside + 2 * (shape.parameters - outside) // max(1, shape.blocks)

    @property
    def _gathered_weights(self) -> int:
        return self.setup.compute_bytes * self._gathered

    @property
    def _gathered_gradients(self) -> int:
        """Gradients of gathered blocks, and float32 copies for their reduction."""
        return 0 if self.setup.adapters else (self.setup.compute_bytes + _FLOAT32) * self._gathered

    @cached_property
    def _weights(self) -> int:
        if self.setup.adapters is None:
            return _FLOAT32 * self.shape.parameters
        linear = self.shape.linear_parameters
        each = _FOUR_BITS if self.setup.method == "QLoRA" else self.setup.compute_bytes
        return int(linear * each + (self.shape.parameters - linear) * self.setup.compute_bytes)

    @property
    def _autocasts(self) -> bool:
        return self.setup.compute_bytes < _FLOAT32

    @property
    def _copies_inputs(self) -> bool:
        """Whether each adapter copies its input; fused adapters share it (`adapted_linear.py`)."""
        return self._autocasts and not self._fused

    @property
    def _fused(self) -> bool:
        lora = self.setup.adapters
        return lora is not None and not lora.use_dora

    @property
    def _norms_fused(self) -> bool:
        """Whether norms keep their input unconverted (`frozen_norm.py`); Gemma's and T5's do not, but they use GELU."""
        on_cpu = self.setup.device == "CPU" and self.setup.adapters is not None
        return on_cpu and self.shape.activation == "silu" and not self.shape.is_encoder_decoder

    def _activations(self, one: Pass) -> float:
        labelled = max(1.0, self.rows.labelled * one.tokens)
        logits = _LOGITS * self.shape.vocabulary * labelled
        body = (
            one.tokens * (self._per_token + self._dropout_bytes()) + self._attention_bytes(one) + self._mask_bytes(one)
        )
        body *= 1 if self.shape.certain else _UNCERTAIN
        last = max(logits, self._largest_product)
        if not one.checkpointing:
            return body + last + self._copies
        blocks = self.shape.blocks
        stream = _FLOAT32 if self.setup.adapters is None else self.setup.compute_bytes
        kept = one.tokens * self.shape.hidden * stream * blocks
        return kept + max(logits, 2 * body / blocks, self._largest_product) + self._copies

    @cached_property
    def _copies(self) -> int:
        """16-bit copies of float32 weights, which autocast makes once per pass."""
        if not self._autocasts or (self.setup.shards > 1 and not self.setup.adapters):  # gathered in 16 bits
            return 0
        return 2 * (self._trained if self.setup.adapters else self.shape.parameters)

    @cached_property
    def _largest_product(self) -> int:
        """Size of a 16-bit copy: 4-bit weights are dequantized for their product, one layer at a time."""
        if self.setup.method != "QLoRA":
            return 0
        return max((one.outputs * one.inputs for one in self.shape.matrices), default=0) * self.setup.compute_bytes

    @cached_property
    def _per_token(self) -> float:
        """Bytes per token in all blocks. In an encoder-decoder each token passes through one of the two stacks."""
        labelled = self.rows.labelled
        total = 0.0
        for in_encoder, part in ((True, 1 - labelled), (False, labelled)):
            stack = self._stack_bytes(in_encoder=in_encoder)
            total += stack * (min(1.0, 1.5 * part) if self.shape.is_encoder_decoder else 1)  # including padding
        return total

    def _stack_bytes(self, *, in_encoder: bool) -> float:
        matrices = [one for one in self.shape.matrices if one.in_encoder == in_encoder]
        norms = [one for one in self.shape.norms if one.in_encoder == in_encoder]
        return self._input_bytes(matrices) + self._output_bytes(matrices) + self._norm_bytes(norms)

    def _input_bytes(self, matrices: list[Matrix]) -> float:
        """What linear layers keep for the gradients of their weights; frozen layers keep nothing.

        Each adapter on a 16-bit layer makes its own copy of the input, as autocast does of float32. Otherwise layers
        with the same input share it.
        """
        lora, width = self.setup.adapters, self.setup.compute_bytes
        targets = frozenset(self._targets)  # a set, because a mixture of experts has thousands of matrices
        learning = matrices if lora is None else [one for one in matrices if one in targets]
        each = inputs = sum(one.share * one.inputs for one in learning)
        if not (self._copies_inputs or (lora and lora.dropout and not self._fused)):
            shared = {(one.parent, one.to_residual, one.inputs): one.share * one.inputs for one in learning}
            inputs = sum(shared.values())
        if lora is None:
            return width * inputs
        mask = each * (1 if self._fused else _MASK[self.setup.device]) if lora.dropout else 0
        dora = _DORA * sum(one.share * one.outputs for one in learning) if lora.use_dora else 0
        return width * (inputs + lora.r * len(learning) + dora) + mask

    def _output_bytes(self, matrices: list[Matrix]) -> float:
        """What attention and feed-forward layers keep of the outputs of linear layers.

        Queries, keys and values; the gate, its activation, and the factor that is multiplied by it. The output of
        attention is the input of the next layer.
        """
        width = self.setup.compute_bytes
        kept = sum(one.share * one.outputs for one in matrices if not one.to_residual)
        gates = sum(one.share * one.gate for one in matrices)
        activated = sum(one.share * one.activated for one in matrices)
        steps = 3 * activated if self.shape.activation in _UNFUSED_GELU else 0
        if self.shape.activation == "relu":  # keeps its output, which is the next layer's input
            steps -= sum(one.share * one.activated for one in matrices if not one.gate)
        answers = sum(one.inputs for one in matrices if one.ends_attention)
        own = answers if self._copies_inputs and self.setup.adapters else 0
        return width * (kept + gates + steps + own)

    def _norm_bytes(self, norms: list[Norm]) -> float:
        """Inputs of norms, mostly in float32; and outputs, if they are then multiplied by trained weights.

        With frozen models on a CPU, a LayerNorm takes the 16-bit residual stream; autocast on a GPU converts it to 32.
        """
        learns = self.setup.adapters is None
        as_it_came = not learns and self.setup.device == "CPU"

        def bytes_of(one: Norm) -> int:
            unconverted = self._norms_fused or (as_it_came and one.has_bias)
            kept = one.width * (2 if learns and not one.has_bias else 1)
            return kept * (self.setup.compute_bytes if unconverted else _FLOAT32)

        return sum(map(bytes_of, norms))

    def _dropout_bytes(self) -> float:
        """Dropout masks of the two layers in each block that add to the residual stream."""
        width = self.setup.compute_bytes if self.setup.device == "CPU" else _MASK["GPU"]
        return 2 * self.shape.blocks * self.shape.hidden * width if self.shape.residual_dropout else 0

    def _mask_bytes(self, one: Pass) -> float:
        """Masks of all pairs of positions. With a bias per head (ALiBi) they are made once, but cast in each block."""
        shape, pairs = self.shape, one.tokens * (self.rows.longest // self.rows.texts)
        if not shape.masked:
            return 0
        if not shape.alibi:
            return self.setup.compute_bytes * pairs * shape.blocks
        casts = shape.blocks if self._autocasts and self.setup.adapters is None else 1
        return self.setup.compute_bytes * pairs * shape.heads * casts

    def _attention_bytes(self, one: Pass) -> float:
        """Scores of all pairs of positions. Most attention keeps none, except with dropout on a CPU, or if capped."""
        shape, pairs = self.shape, self.shape.heads * one.tokens * (self.rows.longest // self.rows.texts)
        if shape.scores_kept:
            return _SCORES * pairs * shape.blocks
        dropped = self.setup.device == "CPU" and shape.dropout > 0
        if not shape.biased:
            by_hand = _FLOAT32 + (self.setup.compute_bytes if self._autocasts else 0)  # scores, and their 16-bit cast
            each = by_hand if shape.scores_by_hand else _DROPPED_SCORES if dropped else 0
            scaled = _SCALED * shape.hidden * one.tokens * self.setup.compute_bytes if dropped else 0
            return (each * pairs + scaled) * shape.blocks
        part = 1 - self.rows.labelled + self.rows.labelled**2  # of the pairs: in both stacks, and in cross-attention
        return part * pairs * (self.setup.compute_bytes + (_DROPPED_SCORES * shape.blocks / 2 if dropped else 0))


def even_passes(step_tokens: int, tokens: int) -> int:
    """How many passes of at most `tokens` tokens a step has at least, if their number is to be even."""
    return 2 * math.ceil(step_tokens / (2 * tokens))
