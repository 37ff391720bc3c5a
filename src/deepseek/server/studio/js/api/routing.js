// What the server says about experts, decoded in this one place.
//
// A choice's `routed_experts` has an entry for each token of the chunk, in step with its log-probabilities: a list over the
// layers with experts of `[expert ids, weights]`, the best first. It is of the computation that chose this token.
// `prompt_routed_experts` has the same for each token of the prompt, where the request asked for "all".

/** `{layers, experts, perToken, shared}` of an entry of /v1/models, null for a dense model. */
export function expertShape(model) {
  const told = model?.experts;
  if (!told?.layers?.length) return null;
  return {
    layers: told.layers, experts: told.n_routed_experts, perToken: told.num_experts_per_tok, shared: told.n_shared_experts ?? 0,
  };
}

function tokenLayers(entry) {
  return entry ? entry.map(([ids, weights]) => ({ ids, weights })) : null;
}

/** One token after the other: a list over layers of `{ids, weights}`, or null where it is not known. */
export function choiceRouting(choice) {
  return (choice?.routed_experts ?? []).map(tokenLayers);
}

/** The same for the prompt. */
export function promptRouting(choice) {
  return (choice?.prompt_routed_experts ?? []).map(tokenLayers);
}
