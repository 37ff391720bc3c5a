// What the server says about experts, decoded in this one place.
//
// A choice's `routed_experts` is a list of `{token, experts, weights}`: the input of that computation was token number
// `token` of the answer, or, where it is negative, of the prompt counted from its end; experts and weights are a list over
// the layers with experts, each the best first. The last token of an answer is nobody's input, so it has no entry.

/** `{layers, experts, perToken, shared}` of an entry of /v1/models, null for a dense model. */
export function expertShape(model) {
  const told = model?.experts;
  if (!told?.layers?.length) return null;
  return {
    layers: told.layers, experts: told.n_routed_experts, perToken: told.num_experts_per_tok, shared: told.n_shared_experts ?? 0,
  };
}

/** A list of `{token, layers: [{ids, weights}]}`, [] where the server told nothing. */
export function choiceRouting(choice) {
  return (choice?.routed_experts ?? []).map(({ token, experts, weights }) => ({
    token,
    layers: experts.map((ids, layer) => ({ ids, weights: weights?.[layer] ?? ids.map(() => 1 / ids.length) })),
  }));
}
