"""Gumbel MuZero search of mctx on pgx's 9×9 Go with a residual network: seconds of CPU for some searches, as JSON.

    python mctx_go.py TREES SIMULATIONS REPEATS

Runs in the peer's own Python. The network has 4 blocks of 64 channels on pgx's 17 planes, float32, plain jax.lax, with
the heads of our own (1×1 convolution, mean and maximum over the board); weights are random, which changes no timing.
"""

import json
import os
import sys
import time

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["OMP_NUM_THREADS"] = "1"
os.sched_setaffinity(0, {next(iter(os.sched_getaffinity(0)))})

import jax  # noqa: E402 # pyrefly: ignore
import jax.numpy as jnp  # noqa: E402 # pyrefly: ignore
import mctx  # noqa: E402 # pyrefly: ignore
import pgx  # noqa: E402 # pyrefly: ignore

BLOCKS, CHANNELS, PLANES = 4, 64, 17
env = pgx.make("go_9x9")


def conv(x, w):
    """3×3 or 1×1, zero padding, NHWC."""
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def weights(key):
    """Random weights of all layers."""
    keys = iter(jax.random.split(key, 40))

    def made(*shape):
        return jax.random.normal(next(keys), shape) * 0.05

    return {
        "stem": made(3, 3, PLANES, CHANNELS),
        "blocks": [(made(3, 3, CHANNELS, CHANNELS), made(3, 3, CHANNELS, CHANNELS)) for _ in range(BLOCKS)],
        "points": made(1, 1, CHANNELS, CHANNELS),
        "pooled": made(2 * CHANNELS, 2 * CHANNELS),
        "move": made(1, 1, CHANNELS, 1),
        "skip": made(CHANNELS, 1),
        "value": made(CHANNELS, 1),
    }


def net(w, x):
    """Logits `[B, 82]` and value `[B]`."""
    x = jax.nn.relu(conv(x, w["stem"]))
    for first, second in w["blocks"]:
        x = jax.nn.relu(x + conv(jax.nn.relu(conv(x, first)), second))
    whole = jnp.concatenate([x.mean((1, 2)), x.max((1, 2))], -1)
    board, judge = jnp.split(jax.nn.relu(whole @ w["pooled"]), 2, -1)
    moves = conv(jax.nn.relu(conv(x, w["points"]) + board[:, None, None, :]), w["move"])
    logits = jnp.concatenate([moves.reshape(len(x), -1), board @ w["skip"]], -1)
    return logits, jnp.tanh(judge @ w["value"])[:, 0]


def recurrent(w, key, action, state):
    """A step of the game and what the network thinks of where it leads."""
    player = state.current_player
    state = jax.vmap(env.step)(state, action)
    logits, value = net(w, state.observation.astype(jnp.float32))
    logits = jnp.where(state.legal_action_mask, logits, jnp.finfo(jnp.float32).min)
    reward = state.rewards[jnp.arange(len(player)), player]
    value = jnp.where(state.terminated, 0.0, value)
    discount = jnp.where(state.terminated, 0.0, -1.0)
    found = mctx.RecurrentFnOutput(reward=reward, discount=discount, prior_logits=logits, value=value)
    return found, state


def main():
    """Compile, then time."""
    trees, simulations, repeats = map(int, sys.argv[1:])
    w = weights(jax.random.PRNGKey(0))
    state = jax.vmap(env.init)(jax.random.split(jax.random.PRNGKey(1), trees))

    @jax.jit
    def search(w, key, state):
        logits, value = net(w, state.observation.astype(jnp.float32))
        root = mctx.RootFnOutput(prior_logits=logits, value=value, embedding=state)
        found = mctx.gumbel_muzero_policy(
            w, key, root, recurrent, simulations, invalid_actions=~state.legal_action_mask
        )
        return found.action

    search(w, jax.random.PRNGKey(0), state).block_until_ready()
    begin = time.process_time()
    for k in range(repeats):
        search(w, jax.random.PRNGKey(k), state).block_until_ready()
    print(json.dumps({"seconds": time.process_time() - begin, "mctx": mctx.__version__, "pgx": pgx.__version__}))


if __name__ == "__main__":
    main()
