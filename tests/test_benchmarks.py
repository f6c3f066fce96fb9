"""The benchmarks run to their end and print a ratio for each comparison; what the ratios are is not tested."""
import re
import subprocess
import sys

from conftest import PROJECT


def test_every_part_prints_its_figures():
    done = subprocess.run([sys.executable, '-m', 'benchmarks', '--size', '64', '--batch', '2', '--model', 'resnet18', '--runs',
                           '1', '--records', '20'], cwd=PROJECT, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r'^\S.* ms +[\d.]+ ms +[\d.]+ x   ', done.stdout, re.MULTILINE)) >= 4, done.stdout
    for words in ('KiB a PNG', 'pictures/s of CPU time', "Paddle's defaults", 'bare forward, backward, step',
                  'going on from output/last', 'export in fp32', 'again, up to date'):
        assert words in done.stdout, done.stdout
