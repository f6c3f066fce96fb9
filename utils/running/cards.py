"""The NVIDIA cards of this machine as nvidia-smi tells them, and the Paddle that works on them.

python -m utils.running.cards: print the package index that has it, as make does before it installs.
What is said here of drivers and cards is read in Paddle's documents and packages, not tried.
"""
import re
import subprocess
from dataclasses import dataclass

from utils.running import errors
from utils.running.errors import UserError

INDEX = 'https://www.paddlepaddle.org.cn/packages/stable/{}/'


@dataclass(frozen=True)
class Cards:
    """names: list of str; driver: str, its version; cuda: (major, minor), the newest that it knows;
    capability: (major, minor), the first card's; both (0, 0) where nvidia-smi does not tell
    """
    names: list
    driver: str
    cuda: tuple
    capability: tuple = (0, 0)

    def __str__(self):
        return (f'{", ".join(self.names)} (driver {self.driver}, which knows CUDA up to '
                f'{self.cuda[0]}.{self.cuda[1]})')


def find_cards():
    """Ask nvidia-smi.

    Returns: Cards, or None where there is no nvidia-smi, no card or no driver
    """
    names = re.findall(r'^GPU \d+: (.*?)(?: \(UUID.*)?$', _ask('-L'), re.MULTILINE)
    if not names:
        return None
    table = _ask()
    driver = re.search(r'Driver Version: *([\d.]+)', table)
    cuda = re.search(r'CUDA[\w ]* Version: *(\d+)\.(\d+)', table)
    # Drivers that do not know this question are older than the cards for which it matters.
    capability = re.match(r'(\d+)\.(\d+)', _ask('--query-gpu=compute_cap', '--format=csv,noheader'))
    return Cards(names, driver[1] if driver else 'unknown', _pair(cuda), _pair(capability))


def _pair(match):
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _ask(*options):
    """What nvidia-smi answers, '' where it fails."""
    try:
        done = subprocess.run(['nvidia-smi', *options], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ''
    return '' if done.returncode else done.stdout


def index_of(cuda, capability):
    """Where the Paddle is that brings CUDA and cuDNN for a driver and a card.

    cuda, capability: as in Cards
    Returns: str, the URL; None where the driver is too old for each
    """
    if cuda < (11, 0):
        return None
    if capability >= (10, 0):  # Blackwell; this package in turn has left out Volta
        return INDEX.format('cu129')
    if cuda >= (12, 4) or capability >= (9, 0):
        return INDEX.format('cu126')
    return INDEX.format('cu118')


def remedy(cuda, capability):
    """The command that installs the Paddle which works, or what to do before there is one."""
    index = index_of(cuda, capability)
    if index is None:
        return 'update the NVIDIA driver to 450.80 or newer / 请先升级 NVIDIA 驱动（至少 450.80）'
    return f'python -m pip install --upgrade "paddlepaddle-gpu>=3" -i {index}'


def main():
    cards = find_cards()
    if cards is None:
        raise UserError('nvidia-smi finds no card; without one: make REQUIREMENTS='
                        'requirements-cpu.txt / 没有找到显卡，请用 '
                        'REQUIREMENTS=requirements-cpu.txt')
    index = index_of(cards.cuda, cards.capability)
    if index is None:
        raise UserError(f'{cards}: no Paddle 3 works with this driver; '
                        f'{remedy(cards.cuda, cards.capability)}; or without the GPU: make '
                        'REQUIREMENTS=requirements-cpu.txt')
    print(index)


if __name__ == '__main__':
    errors.run(main)
