"""What models/ computes: schedule, optimizer, loss, averages, and the way back from bad numbers."""
import numpy as np
import paddle
import pytest

from models import build_model, to_input
from models.loss import compute_loss, weigh_classes
from models.optimizer import learning_rate, make_optimizer
from models.weights import Average, is_finite, set_state, state_arrays, weights_of
from utils.answers.tasks import TASKS
from utils.running.errors import UserError
from utils.running.settings import Train


@pytest.mark.parametrize('iteration, expected', [(1, 0.0), (10, 0.000045), (20, 0.000095),
                                                 (200, 0.000995), (201, 0.001), (10000, 0.0)])
@pytest.mark.parametrize('decay', ['cosine', 'polynomial'])
def test_learning_rate_of_the_contract(iteration, expected, decay):
    assert learning_rate(iteration, Train(decay=decay)) == pytest.approx(expected, abs=1e-12)


def test_learning_rate_falls_after_the_warm_up_down_to_the_end():
    for train in (Train(iters=50, warmup_iters=7, end_learning_rate=1e-4), Train(warmup_iters=0)):
        rates = [learning_rate(i, train) for i in range(train.warmup_iters + 1, train.iters + 1)]
        assert rates[0] == 0.001 and rates == sorted(rates, reverse=True)
        assert rates[-1] == pytest.approx(train.end_learning_rate)


def test_to_input_is_imagenets_normalisation():
    picture = np.array([[[0, 255], [255, 255]]], np.uint8)
    found = to_input(picture).numpy()
    assert found.shape == (1, 3, 2, 2) and np.ptp(found, axis=1).max() == 0
    assert np.allclose(found[0, 0, 0], [(0 - 0.449) / 0.226, (1 - 0.449) / 0.226])
    beats = to_input(np.array([[[7, 7], [7, 7]]], np.uint8)).numpy()
    both = to_input(np.concatenate([picture, np.full((1, 2, 2), 7, np.uint8)], axis=1)).numpy()
    assert np.array_equal(both, np.stack([found[:, 0], beats[:, 0], found[:, 0]], axis=1))


def test_loss_by_hand():
    logits = np.array([[1.0, -1.0], [0.5, 2.0]], np.float32)
    targets = np.array([0, 1])
    each = [np.log(1 + np.exp(-2.0)), np.log(1 + np.exp(-1.5))]
    found = compute_loss(paddle.to_tensor(logits), targets, None, 0.0, TASKS[1])
    assert float(found) == pytest.approx(np.mean(each), rel=1e-5)
    weighed = compute_loss(paddle.to_tensor(logits), targets, np.array([1, 3]), 0.0, TASKS[1])
    assert float(weighed) == pytest.approx((each[0] + 3 * each[1]) / 4, rel=1e-5)
    smooth = compute_loss(paddle.to_tensor(logits), targets, None, 0.2, TASKS[1])
    other = [np.log(1 + np.exp(2.0)), np.log(1 + np.exp(1.5))]
    assert float(smooth) == pytest.approx(0.9 * np.mean(each) + 0.1 * np.mean(other), rel=1e-5)


def test_loss_of_several_labels_by_hand():
    logits = np.linspace(-2, 2, 12, dtype=np.float32)[None]
    targets, weights = np.eye(12, dtype=np.float32)[9:10], np.arange(1.0, 13, dtype=np.float32)
    present, absent = np.log1p(np.exp(-logits)), np.log1p(np.exp(logits))
    soft = np.where(targets == 1, 0.9, 0.1)
    found = compute_loss(paddle.to_tensor(logits), targets, weights, 0.2, TASKS[2])
    expected = (weights * soft * present + (1 - soft) * absent).mean()
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_balanced_classes_count_alike():
    targets = np.array([0] * 8 + [1] * 2)
    weights = weigh_classes(targets, 'balanced', TASKS[1])
    assert 8 * weights[0] == pytest.approx(2 * weights[1])
    assert weigh_classes(targets, 'none', TASKS[1]) is None
    several = np.zeros((100, 12), np.float32)
    several[:10, 3] = several[:1, 4] = several[:, 5] = 1
    weights = weigh_classes(several, 'balanced', TASKS[2])
    assert weights[3:6].tolist() == [9, 20, 1]  # however rare one is, or how frequent


def make_run(optimizer='adamw', share=0.0):
    network = paddle.nn.Sequential(paddle.nn.Linear(3, 4), paddle.nn.BatchNorm1D(4),
                                   paddle.nn.Linear(4, 2))
    other = paddle.nn.Sequential(paddle.nn.Linear(3, 4), paddle.nn.BatchNorm1D(4),
                                 paddle.nn.Linear(4, 2))
    train = Train(optimizer=optimizer, weight_decay=0.5, clip_norm=0.0)
    return Average(network, other, share), make_optimizer(train, network)


def take_step(average, optimizer, value=1.0, rate=0.1):
    optimizer.set_lr(rate)
    loss = average.model(paddle.full([4, 3], value) * paddle.arange(4.0).unsqueeze(1)).sum()
    loss.backward()
    optimizer.step()
    optimizer.clear_grad()


@pytest.mark.parametrize('optimizer', ['adamw', 'momentum'])
def test_decay_acts_on_weights_alone(optimizer):
    average, optimizer = make_run(optimizer)
    before = weights_of(average.model)
    optimizer.set_lr(0.1)
    parameters = [each for each in average.model.parameters() if not each.stop_gradient]
    (sum(each.sum() for each in parameters) * 0).backward()
    optimizer.step()
    after = weights_of(average.model)
    for key in ('0.weight', '2.weight'):
        assert np.allclose(after[key], before[key] * (1 - 0.1 * 0.5), atol=1e-6), key
    for key in ('0.bias', '1.weight', '1.bias', '2.bias'):
        assert np.array_equal(after[key], before[key]), key


def test_average_is_the_mean_of_the_last_part_of_the_run():
    def follow(share, iterations):
        average, _ = make_run(share=share)
        for iteration in range(1, iterations + 1):
            average.model[0].bias.set_value(np.full(4, iteration, np.float32))
            average.follow(iteration)
        return average.network[0].bias.numpy()[0]

    # With the weight 1 / (share * i), the mean of 1, 2, ... i is i / (1 + share), about.
    for share, iterations in ((0.5, 100), (0.5, 403), (0.33, 3000)):
        assert follow(share, iterations) == pytest.approx(iterations / (1 + share), rel=0.02)
    assert follow(0.0, 7) == 7


def test_numbers_that_are_not_finite_are_seen():
    average, optimizer = make_run()
    take_step(average, optimizer)
    assert is_finite(average.model)
    for key, value in average.model.state_dict().items():
        for bad in (np.nan, np.inf, -np.inf):
            good = value.numpy().copy()
            value.set_value(np.full(value.shape, bad, np.float32))
            assert not is_finite(average.model), key
            value.set_value(good)
    take_step(average, optimizer, value=np.nan)
    assert not is_finite(average.model)


def test_state_comes_back_and_what_does_not_fit_is_refused():
    average, optimizer = make_run()
    take_step(average, optimizer)
    scaler = paddle.amp.GradScaler(enable=False)
    arrays = state_arrays(average, optimizer, scaler)
    take_step(average, optimizer)
    average.follow(1)
    set_state(average, optimizer, scaler, arrays, 'last')
    back = state_arrays(average, optimizer, scaler)
    assert all(np.array_equal(value, back[key]) for key, value in arrays.items())
    name = next(key for key in arrays if key.startswith('optimizer/') and 'moment' in key)
    for change in ({name: np.zeros((9, 9), np.float32)}, {name: arrays[name].astype('f8')},
                   {'optimizer/strange': arrays[name]}, {'model/strange': arrays[name]},
                   {'model/0.weight': np.zeros((2, 2), 'f4')},
                   {'average/0.weight': np.zeros((2, 2), 'f4')}):
        with pytest.raises(UserError, match='^last: '):
            set_state(average, optimizer, scaler, {**arrays, **change}, 'last')


def test_build_model_is_the_same_for_the_same_seed():
    first, again, other = (weights_of(build_model('resnet18', 12, seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(value, again[key]) for key, value in first.items())
    assert not np.array_equal(first['conv1.weight'], other['conv1.weight'])
