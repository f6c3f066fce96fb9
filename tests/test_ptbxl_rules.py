"""What PTB-XL's statements mean here, and what is refused of its files: needs neither its records nor wfdb."""
import os
import subprocess
import sys
import zipfile

import pytest

from utils import ptbxl
from utils.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOP = 'ptb-xl-a-large-publicly-available-electrocardiography-dataset-1.0.3/'
# Written anew, not from the module's table; 0: says nothing by itself, so the record is "other" where it stands alone.
CLASS_OF = {
    1: 'NORM', 2: 'SBRAD', 3: 'STACH', 4: 'SARRH', 5: 'AFIB', 6: 'PVC', 7: 'PAC', 8: '1AVB LPR', 9: 'CRBBB',
    10: 'NDT NT_ TAB_ LOWT INVT',
    11: 'NST_ STD_ STE_ ISC_ ISCAL ISCAN ISCAS ISCIL ISCIN ISCLA INJAL INJAS INJIL INJIN INJLA ANEUR DIG',
    12: 'EL LNGQT AMI ALMI ASMI ILMI IMI IPLMI IPMI LMI PMI QWAVE ABQRS LVH RVH SEHYP VCLVH HVOLT LVOLT LAO/LAE RAO/RAE '
        'IRBBB CLBBB ILBBB LAFB LPFB IVCD WPW 2AVB 3AVB AFLT SVTAC PSVT SVARR PACE PRC(S) BIGU TRIGU',
    0: 'SR'}


def test_every_statement_has_its_class():
    expected = {code: label for label, codes in CLASS_OF.items() for code in codes.split()}
    assert len(expected) == 71 and {code: label for code, (label, _) in ptbxl.STATEMENTS.items()} == expected
    for code, label in expected.items():
        assert ptbxl.labels_of({code: 0.0}, 2) == [label or 12]
        assert ptbxl.labels_of({code: 0.0, 'NORM': 100.0}, 2) == [label or 1]
        assert ptbxl.labels_of({code: 100.0}, 1) == [0 if code == 'NORM' else 1]


@pytest.mark.parametrize('codes, labels', [
    (['NORM', 'SR'], [1]),
    (['NORM'], [1]),
    (['NORM', 'SBRAD'], [2]),  # "sinus bradycardia, otherwise normal ECG"
    (['NORM', 'SR', 'LVOLT'], [12]),
    (['NORM', 'IRBBB', 'NT_'], [10, 12]),
    (['SR'], [12]),  # not called normal
    (['AFIB'], [5]),
    (['SR', '1AVB', 'LPR'], [8]),
    (['CRBBB', 'IRBBB'], [9, 12]),
    (['ISCAN', 'INVT', 'SR'], [10, 11]),
    (['BIGU', 'SR'], [12]),
    (['BIGU', 'PVC', 'SR'], [6]),  # PVC says what the bigeminy is made of
    (['PRC(S)', 'PAC'], [7]),
    (['PACE'], [12]),
    (['AFLT'], [12]),
])
def test_combined_statements(codes, labels):
    assert ptbxl.labels_of({code: 0.0 for code in codes}, 2) == labels
    assert ptbxl.labels_of({code: 100.0 for code in codes}, 2) == labels  # a likelihood changes nothing
    assert ptbxl.labels_of({code: 0.0 for code in codes}, 1) == [0 if 'NORM' in codes else 1]


def link(archive):
    info = zipfile.ZipInfo(TOP + 'link')
    info.external_attr = 0o120777 << 16
    archive.writestr(info, '/etc/passwd')


@pytest.mark.parametrize('add', [
    lambda archive: archive.writestr('/etc/evil', 'x'),
    lambda archive: archive.writestr(TOP + '../../evil', 'x'),
    lambda archive: archive.writestr('C:/evil', 'x'),
    lambda archive: archive.writestr('a\\..\\evil', 'x'),
    link,
])
def test_hostile_zip_is_refused(tmp_path, add):
    with zipfile.ZipFile(tmp_path / 'bad.zip', 'w') as archive:
        archive.writestr(TOP + 'ptbxl_database.csv', 'x')
        add(archive)
    with pytest.raises(UserError, match='expected plain files'):
        ptbxl.Source(str(tmp_path / 'bad.zip'))


def test_imports_neither_paddle_nor_wfdb():
    code = 'import sys, utils.ptbxl; sys.exit(any(name in sys.modules for name in ("paddle", "wfdb", "pandas")))'
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0
