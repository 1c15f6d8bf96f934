"""Several processes that train one network: the same bits twice, and one process's up to rounding;
what goes wrong in one of them is one line, and none is left.
"""

import functools
import multiprocessing
import os
import signal
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from stages.lib.core import params
from stages.lib.core.errors import UserError
from stages.lib.evaluation import ranks
from stages.lib.evaluation.states import States
from stages.lib.pruning import masks
from stages.lib.training import loop
from tests import toys
from tests.conftest import TINY, Repository

# The last batch of an epoch, three images, is too small for two ranks.
DATA = toys.data(train=27)


def plain(drop=0.0):
    """A network whose gradient is a mean over images, as none of its layers mixes them."""
    torch.manual_seed(0)
    return toys.Net(
        answered, hidden=nn.Linear(64, 16), drop=nn.Dropout(drop), last=nn.Linear(16, 3),
        unused=nn.Linear(2, 2),
    )  # fmt: skip


def answered(net, images):
    return net.last(net.drop(net.hidden(images.flatten(1)).relu()))


NETWORKS = {"plain": plain, "dropping": functools.partial(plain, 0.5), "convnet": toys.convnet}


def fit(model, scheme=None, states=None):
    return loop.fit(
        model,
        DATA,
        toys.training_params(shift=1),
        epochs=3,
        learning_rate=0.05,
        generator=torch.Generator().manual_seed(3),
        masks=masks.of_zeros(model),
        scheme=scheme,
        states=states,
        label="this training",
    )


def join():
    torch.set_num_threads(1)
    return ranks.join(torch.device("cpu"))


def train_all(folder):
    """Trains each network twice, and writes what came out in this rank."""
    join()
    norm = nn.BatchNorm1d(2)
    norm.running_mean.fill_(1 + ranks.number())
    ranks.average_statistics(norm)
    assert norm.running_mean.tolist() == [1.5, 1.5]
    for name, build in NETWORKS.items():
        for time in range(2):
            trained, curve = fit(build())
            numbers = torch.tensor([list(epoch) for epoch in curve], dtype=torch.float64)
            tensors = trained.state_dict() | {"curve": numbers}
            save_file(tensors, folder / f"{name}-{time}-{ranks.number()}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with what two ranks have trained."""
    folder = tmp_path_factory.mktemp("trained")
    ranks.launch(2, train_all, folder)
    return folder


def test_ranks_agree_repeat_and_equal_one_process(trained):
    for name, build in NETWORKS.items():
        one, *others = (
            load_file(trained / f"{name}-{time}-{n}") for time in (0, 1) for n in (0, 1)
        )
        for other in others:
            assert toys.same_tensors(one, other)
        network, curve = fit(build())
        alone = network.state_dict() | {"curve": torch.tensor([list(epoch) for epoch in curve])}
        if name == "plain":
            for key, tensor in alone.items():
                torch.testing.assert_close(one[key].to(tensor), tensor, rtol=1e-4, atol=1e-5)
        assert not toys.same_tensors(one, alone)
    # Each rank's batch norm sees half of a batch; the network learns alike.
    assert one["curve"][-1, 2] == pytest.approx(float(alone["curve"][-1, 2]), rel=0.2)


@given(st.integers(1, 60), st.integers(1, 9))
@toys.few_examples
def test_shares_hold_every_image_and_sum_to_the_batch(size, count):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "count", lambda: count)
        shares = []
        for number in range(count):
            patch.setattr(ranks, "number", lambda number=number: number)
            shares.append(ranks.share(size))
    images = list(range(size))
    counted = [image for share in shares for image in images[share.part][share.counted]]
    assert counted == images
    assert sum(share.weight for share in shares) == pytest.approx(1)
    assert all(len(images[share.part]) >= min(size, params.LEAST_IMAGES) for share in shares)


class Failing(loop.TrainingScheme):
    """Fails in the second epoch, in the last rank alone. Counts the steps."""

    def __init__(self, how):
        self.how, self.steps = how, 0

    def state(self):
        """Nothing, but this says so."""

    def before_step(self, model, progress):
        self.steps += 1
        if self.how == "nothing":
            return
        if 0.4 < progress < 0.5 and ranks.number() == 1:
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "interrupted":
                os.kill(os.getppid(), signal.SIGINT)
            else:
                raise UserError("data: a line")


def train_until(how):
    join()
    fit(toys.convnet(), Failing(how))


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("user", UserError, "^data: a line$"),
        ("interrupted", KeyboardInterrupt, "^$"),
    ],
)
def test_one_ranks_failure_ends_all_and_is_one_line(how, kind, words):
    with pytest.raises(kind, match=words):
        ranks.launch(2, train_until, how)
    assert not multiprocessing.active_children()


def train_on(folder, how):
    """Goes on from the states in the folder, and writes what came out."""
    join()
    ranks.QUESTIONS = 1
    scheme = Failing(how)
    trained, _ = fit(NETWORKS["dropping"](), scheme, States(folder / f"rank-{ranks.number()}"))
    steps = torch.tensor(scheme.steps)
    save_file(trained.state_dict() | {"steps": steps}, folder / f"trained-{ranks.number()}")


def test_a_rank_is_killed_and_all_go_on_from_their_states(trained, tmp_path):
    words = r"^compute\.ranks: rank 1 ended with SIGKILL, .* use fewer ranks.*$"
    with pytest.raises(UserError, match=words):
        ranks.launch(2, train_on, tmp_path, "killed")
    ranks.launch(2, train_on, tmp_path, "nothing")
    for number in (0, 1):
        whole = load_file(trained / f"dropping-0-{number}")
        again = load_file(tmp_path / f"trained-{number}")
        # Of three epochs of four batches.
        assert again.pop("steps") < 12
        whole.pop("curve")
        assert toys.same_tensors(whole, again)


def test_a_stage_runs_in_ranks_and_leaves_the_same_bytes(tmp_path):
    repository = Repository(tmp_path / "repository", TINY)
    repository.change("compute.ranks", 2)
    repository.stages("probe", "prepare_data")
    results = repository.path / "artifacts/train_baseline/seed-0"
    found = []
    for _ in range(2):
        done = repository.run(sys.executable, "-m", "stages.train_baseline", "--seed", "0")
        assert (done.returncode, done.stderr) == (0, "")
        assert "% validation" in done.stdout
        assert [path.name for path in results.parent.glob("[!.]*")] == ["seed-0"]
        assert not [*results.parent.glob("*.partial")]
        found.append({path.name: path.read_bytes() for path in results.iterdir()})
    assert found[0] == found[1]
    assert {"model.safetensors", "rows.csv"} <= found[0].keys()
