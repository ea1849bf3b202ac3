"""What the layers of a decoder are, one by one, as the fields of its config say it."""


class DecoderLayers:
    """The part of a `DecoderConfig` that tells layer from layer; the fields are defined there."""

    vocab_size: int
    n_layers: int
    n_kv_heads: int
    head_dim: int
    sliding_window: int
    global_every: int
    layer_pattern: str
    rope_layers: str
    linear_layers: str
    global_head_dim: int
    global_kv_heads: int
    global_values_are_keys: bool
    kv_shared_layers: int
    layer_input_rows: int
    n_experts: int
    expert_layers: str

    def local_layers(self) -> list[bool]:
        """Whether each layer has the sliding window."""
        if not self.sliding_window:
            return [False] * self.n_layers
        pattern = self.layer_pattern or "L" * ((self.global_every or self.n_layers + 1) - 1) + "G"
        return [letter == "L" for letter in self._of_layers(pattern)]

    def rotating_layers(self) -> list[bool]:
        """Whether each layer has RoPE."""
        return [letter == "R" for letter in self._of_layers(self.rope_layers or "R")]

    def attention_kinds(self) -> list[str]:
        """The kind of each layer's attention: "full" (softmax) or "linear"."""
        pattern = self._of_layers(self.linear_layers or "F")
        return ["linear" if letter == "L" else "full" for letter in pattern]

    def layers_with_experts(self) -> list[bool]:
        """Whether each layer has experts."""
        pattern = self._of_layers(self.expert_layers or "E")
        return [bool(self.n_experts) and letter == "E" for letter in pattern]

    def layer_kinds(self) -> list[str]:
        """The kind of each layer; layers of a kind have parameters of the same shapes.

        "linear": linear attention. "full": softmax attention. Where global and local layers differ
        in more than the window, "full" is global and "local" is local; "full_shared" and
        "local_shared" are those that read the keys and values of another layer. "_dense" at the
        end: a layer without experts in a model with experts.
        """
        kinds = self.attention_kinds()
        if self.splits_local:
            kinds = ["local" if is_local else "full" for is_local in self.local_layers()]
        n_own = self.n_kv_layers
        kinds = kinds[:n_own] + [f"{kind}_shared" for kind in kinds[n_own:]]
        if not self.n_experts:
            return kinds
        return [
            kind if has_experts else f"{kind}_dense"
            for kind, has_experts in zip(kinds, self.layers_with_experts(), strict=True)
        ]

    @property
    def splits_local(self) -> bool:
        """Whether local layers are a kind of their own."""
        return bool(
            self.global_head_dim
            or self.global_kv_heads
            or self.global_values_are_keys
            or self.kv_shared_layers
        )

    @property
    def n_kv_layers(self) -> int:
        """The layers that do not read another layer's keys and values; they come first."""
        return self.n_layers - self.kv_shared_layers

    @property
    def n_layer_input_rows(self) -> int:
        """Rows of the table with embeddings for each layer, where there is one."""
        return max(self.layer_input_rows, self.vocab_size)

    def head_dim_of(self, *, local: bool) -> int:
        """The width of a head in local or in global layers."""
        return self.head_dim if local else self.global_head_dim or self.head_dim

    def kv_heads_of(self, *, local: bool) -> int:
        """The number of key and value heads in local or in global layers."""
        return self.n_kv_heads if local else self.global_kv_heads or self.n_kv_heads

    def _of_layers(self, pattern: str) -> list[str]:
        return [pattern[layer % len(pattern)] for layer in range(self.n_layers)]
