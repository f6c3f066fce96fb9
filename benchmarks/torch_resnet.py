"""ResNet50 (He et al. 2015, its stride in the 3x3 as paddle.vision and torchvision have it) in
PyTorch, to compare with."""
from torch import nn
from torch.nn import functional as F


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut."""

    def __init__(self, inside, width, stride):
        super().__init__()
        self.convolutions = nn.ModuleList([
            nn.Conv2d(inside, width, 1, bias=False),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.Conv2d(width, 4 * width, 1, bias=False)])
        self.norms = nn.ModuleList([
            nn.BatchNorm2d(width), nn.BatchNorm2d(width), nn.BatchNorm2d(4 * width)])
        self.shortcut = nn.Identity()
        if stride > 1 or inside != 4 * width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x):
        out = x
        for at, (convolution, norm) in enumerate(zip(self.convolutions, self.norms)):
            out = norm(convolution(out))
            out = F.relu(out, inplace=True) if at < 2 else out
        return F.relu(out + self.shortcut(x), inplace=True)


def resnet50(classes):
    """float32 (n, 3, size, size) -> logits (n, classes)"""
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True),
              nn.MaxPool2d(3, 2, 1)]
    inside = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            layers.append(Bottleneck(inside, width, stride if block == 0 else 1))
            inside = 4 * width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, classes)]
    return nn.Sequential(*layers, *head)
