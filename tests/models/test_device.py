"""What is said about a card that does not work, with the errors that Paddle raises on one; there is
no card in these tests."""
from types import SimpleNamespace

import paddle
import pytest

from models import device, memory
from utils.running import cards
from utils.running.errors import UserError
from utils.running.settings import Config, Model, Train

V100 = cards.Cards(['Tesla V100'], '550.54.15', (12, 4), (7, 0))
NO_KERNEL = OSError('\n\n  C++ Traceback\n0 paddle::gpu()\nError Message Summary:\n\n'
                    'ExternalError: (External) CUDA error(209), no kernel image is available for '
                    'execution on the device. \n  [Hint: Please search for the error code(209)] '
                    '(at /paddle/paddle/phi/backends/gpu/cuda/cuda_info.cc:209)\n')
NO_CUDNN = RuntimeError('(PreconditionNotMet) Cannot load cudnn shared library. Cannot invoke '
                        'method cudnnGetVersion.\n  [Hint: cudnn_dso_handle should not be null.] '
                        '(at /paddle/paddle/phi/backends/dynload/cudnn.cc:64)')


def has_gpu(monkeypatch, count, found=V100, capability=(7, 0)):
    """Let Paddle be built for CUDA and see `count` cards, nvidia-smi see `found`."""
    monkeypatch.setattr(paddle, 'is_compiled_with_cuda', lambda: True)
    monkeypatch.setattr(cards, 'find_cards', lambda: found)
    for name, value in (('device_count', count), ('get_device_name', 'Some card'),
                        ('get_device_capability', capability),
                        ('get_device_properties', SimpleNamespace(name='Some card',
                                                                  total_memory=16 * 2**30))):
        monkeypatch.setattr(paddle.device.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(paddle.device, 'get_cudnn_version', lambda: None)


def refusal(wanted='auto'):
    with pytest.raises(UserError) as caught:
        device.choose_device(wanted)
    line, = caught.value.lines
    return line


def test_a_card_that_paddle_does_not_see_is_no_reason_to_train_on_the_cpu(monkeypatch):
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    has_gpu(monkeypatch, 0, cards.Cards(['Tesla V100'], '418.67', (10, 1)))
    for wanted in ('auto', 'gpu'):
        line = refusal(wanted)
        for words in ('Tesla V100 (driver 418.67', 'up to 10.1', paddle.__version__,
                      'too old', 'update the NVIDIA driver', '-o device=cpu', '显卡'):
            assert words in line, line
    assert device.choose_device('cpu')[0] == 'cpu'
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '7')
    assert "CUDA_VISIBLE_DEVICES is '7'; mend it: unset" in refusal()
    monkeypatch.setattr(paddle, 'is_compiled_with_cuda', lambda: False)
    assert 'CPU build' in refusal() and 'pip uninstall -y paddlepaddle' in refusal()
    has_gpu(monkeypatch, 0, None)
    assert device.choose_device('auto')[0] == 'cpu'
    assert 'nvidia-smi no card' in refusal('gpu')


@pytest.mark.parametrize('error, capability, words', [
    (NO_KERNEL, (12, 0), ('CUDA error(209), no kernel image', 'capability 12.0', 'cu129')),
    (NO_CUDNN, (7, 0), ('Cannot load cudnn', 'cuDNN found: none', 'cu126')),
    (OSError('(External) CUDNN error(1), CUDNN_STATUS_NOT_INITIALIZED.'), (8, 0), ('CUDNN',)),
    (MemoryError('(ResourceExhausted) Out of memory error on GPU 0.'), (7, 0),
     ('its memory is taken', 'nvidia-smi shows by whom'))])
def test_a_card_is_tried_and_what_fails_there_is_one_line(error, capability, words, monkeypatch):
    def fail(*_):
        raise error

    has_gpu(monkeypatch, 1, capability=capability)
    monkeypatch.setattr(paddle.device, 'set_device', lambda _: None)
    assert device.choose_device('auto')[0] == 'gpu:0'  # the real trial, on the CPU
    monkeypatch.setattr(paddle.nn.functional, 'conv2d', fail)
    line = refusal()
    for each in ('gpu:0 Some card', *words):
        assert each in line, line
    assert 'Hint' not in line and 'Traceback' not in line and '.cc' not in line


@pytest.mark.parametrize('error, expected', [
    (MemoryError('ResourceExhaustedError'), True), (RuntimeError('(ResourceExhausted) x'), True),
    (OSError('(External) CUDA error(2), out of memory.'), True),
    (OSError('(External) CUDNN error(4), CUDNN_STATUS_ALLOC_FAILED.'), True),
    (OSError('(External) CUBLAS error(3), CUBLAS_STATUS_ALLOC_FAILED.'), True),
    (NO_KERNEL, False), (OSError(28, 'No space left on device'), False)])
def test_out_of_memory_has_many_forms(error, expected):
    assert device.is_out_of_memory(error) == expected


def test_mixed_precision_is_said_to_be_on_where_it_is(monkeypatch):
    assert device.choose_precision('auto', 'cpu')[0] is False
    for capability, amp in (((6, 1), False), ((7, 0), True), ((12, 0), True)):
        has_gpu(monkeypatch, 1, capability=capability)
        assert device.choose_precision('auto', 'gpu:0')[0] is amp
        assert device.choose_precision(True, 'gpu:0')[1].startswith(
            'mixed precision on' if amp else 'mixed precision off: it needs')
        assert device.choose_precision(False, 'gpu:0') == (False, 'mixed precision off')


def test_a_card_that_is_too_small_is_said_with_the_batch_that_fits(monkeypatch):
    has_gpu(monkeypatch, 1)  # 16 GiB
    assert memory.notes('gpu:0', Config(), True, 1) == []
    line, = memory.notes('gpu:0', Config(), False, 1)
    assert 'needs about 26 GiB on each GPU, gpu:0 has 16.0' in line
    assert 'train.batch_size=18' in line
    assert memory.notes('gpu:0', Config(), False, 2) == []  # half of the batch on each
    small = Config(model=Model(name='resnet18'), train=Train(batch_size=32))
    assert memory.notes('gpu:0', small, False, 1) == memory.notes('cpu', Config(), False, 1) == []
