"""The network that parts rows: OpenCV computes what Paddle does, from the file that is written."""
import cv2
import numpy as np

from models import device
from models.parting import SAID, SEEN, build_parting, to_onnx


def test_opencv_computes_what_paddle_does():
    paddle = device.import_paddle()
    paddle.seed(1)
    network = build_parting()
    seen = np.random.default_rng(1).random((1, SEEN, 48, 80), np.float32)
    network(paddle.to_tensor(seen))  # BatchNorm's means are no longer 0
    network.eval()
    true = paddle.nn.functional.sigmoid(network(paddle.to_tensor(seen))).numpy()
    written = cv2.dnn.readNetFromONNX(np.frombuffer(to_onnx(network), np.uint8))
    written.setInput(seen)
    said = written.forward()
    assert said.shape == (1, SAID, 48, 80) and np.ptp(true) > 0.01
    assert np.abs(said - true).max() < 1e-4
