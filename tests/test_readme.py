"""README.md and README_ch.md tell the same commands and settings, and both are true."""
import os
import re
import textwrap

import pytest

from tests.helpers import PROJECT
from utils.running import settings

LANGUAGES = ('README.md', 'README_ch.md')
BLOCK = re.compile(r'^ *```\n(.*?)^ *```$', re.DOTALL | re.MULTILINE)


def read(name):
    with open(os.path.join(PROJECT, name), encoding='utf-8') as file:
        return file.read()


def code_lines(text):
    """The lines of all code blocks without what explains them: comments, and what stands apart."""
    lines = [re.split('#|  ', line)[0].strip() for block in BLOCK.findall(text)
             for line in textwrap.dedent(block).splitlines() if not line.startswith(' ')]
    return [line for line in lines if line]


def inline_codes(text):
    return set(re.findall('`([^`\n]+)`', BLOCK.sub('', text)))


def sections_of(text):
    """A mark for each heading, table row and list item, top to bottom."""
    marks = re.findall(r'^(##|\||[*-] |\d\. )', BLOCK.sub('', text), re.MULTILINE)
    return ''.join(mark[0] if not mark[0].isdigit() else '1' for mark in marks)


def test_both_languages_tell_the_same():
    english, chinese = map(read, LANGUAGES)
    assert code_lines(chinese) == code_lines(english)
    assert inline_codes(chinese) == inline_codes(english)
    assert sections_of(chinese) == sections_of(english)


@pytest.mark.parametrize('name', LANGUAGES)
def test_settings_that_are_named_exist(name):
    known, text = set(settings.flatten(settings.Config())), read(name)
    sections = '|'.join(settings.SECTIONS)
    named = set(re.findall(rf'(?<![\w/])(?:{sections})\.(?!py\b|log\b)[a-z_]+', text))
    named |= set(re.findall(r'-o ([a-z_.]+)=', text)) - {'section.key'}
    assert len(named) > 10 and not named - known


@pytest.mark.parametrize('name', LANGUAGES)
def test_defaults_in_the_table_of_settings_are_those_of_the_code(name):
    rows = re.findall(r'^\| `([a-z]+[a-z_.]*)` \| ([a-z0-9.]+) \|', read(name), re.MULTILINE)
    assert len(rows) >= 4
    for key, default in rows:
        assert str(settings.default_of(key)) == default, key


@pytest.mark.parametrize('name', LANGUAGES)
def test_options_that_are_named_exist(name):
    where_they_are = 'predict.py', 'train.py', 'utils/running/settings.py'
    scripts = ''.join(map(read, where_they_are))
    for option in set(re.findall(r'(?<![\w-])--[a-z][a-z-]+', read(name))) - {'--help'}:
        assert f"'{option}'" in scripts, option


@pytest.mark.parametrize('name', LANGUAGES)
def test_files_that_are_linked_exist(name):
    links = re.findall(r'\]\((?!https?:)([^)#]+)', read(name))
    assert links
    for link in links:
        assert os.path.exists(os.path.join(PROJECT, link)), link
