"""What the network that comes along has learnt to say of an ECG: task 3's outputs.

Each is what a reader of PTB-XL wrote, by the groups of PTB-XL's own scp_statements.csv: its
superclasses (super:), subclasses (sub:), rhythms (rhythm:) and forms (form:) with 50 records or
more; without NORM, whose opposite comes first, and form:NST, which is sub:NST. The last four are
classes of task 2 that several groups make up.
"""

from dataclasses import dataclass

import numpy as np

_T = 'form:NDT form:NT form:TAB form:LOWT form:INVT'
_ST = 'sub:NST form:STD form:STE sub:ISC sub:ISCA sub:ISCI form:DIG'
_OTHER = ('super:MI super:HYP sub:IRBBB sub:CLBBB sub:ILBBB sub:LAFB/LPFB sub:IVCD sub:WPW '
          'form:LNGQT form:QWAVE form:ABQRS form:VCLVH form:HVOLT form:LVOLT rhythm:AFLT '
          'rhythm:SVTAC rhythm:PSVT rhythm:SVARR rhythm:PACE rhythm:BIGU rhythm:TRIGU form:PRC(S)')

# (English, Chinese, groups of which one at least must be there); "abnormal" is the lack of NORM.
FINDINGS = (
    ('abnormal', '异常', ''),
    ('myocardial infarction', '心肌梗死', 'super:MI'),
    ('ST or T change', 'ST-T 改变', 'super:STTC'),
    ('conduction disturbance', '传导障碍', 'super:CD'),
    ('hypertrophy', '心房或心室肥大', 'super:HYP'),
    ('inferior infarction', '下壁心肌梗死', 'sub:IMI'),
    ('anterior infarction', '前壁心肌梗死', 'sub:AMI'),
    ('lateral infarction', '侧壁心肌梗死', 'sub:LMI'),
    ('unspecific ST-T change', '非特异性 ST-T 改变', 'sub:STTC'),
    ('unspecific ST change', '非特异性 ST 改变', 'sub:NST'),
    ('ischemia', '心肌缺血', 'sub:ISC'),
    ('anterior ischemia', '前壁心肌缺血', 'sub:ISCA'),
    ('inferior ischemia', '下壁心肌缺血', 'sub:ISCI'),
    ('left ventricular hypertrophy', '左心室肥大', 'sub:LVH'),
    ('right ventricular hypertrophy', '右心室肥大', 'sub:RVH'),
    ('left atrial enlargement', '左心房扩大', 'sub:LAO/LAE'),
    ('right atrial enlargement', '右心房扩大', 'sub:RAO/RAE'),
    ('left fascicular block', '左束支分支阻滞', 'sub:LAFB/LPFB'),
    ('complete left bundle branch block', '完全性左束支阻滞', 'sub:CLBBB'),
    ('incomplete left bundle branch block', '不完全性左束支阻滞', 'sub:ILBBB'),
    ('complete right bundle branch block', '完全性右束支阻滞', 'sub:CRBBB'),
    ('incomplete right bundle branch block', '不完全性右束支阻滞', 'sub:IRBBB'),
    ('intraventricular conduction delay', '室内传导阻滞', 'sub:IVCD'),
    ('AV block', '房室阻滞', 'sub:AVB'),
    ('Wolff-Parkinson-White syndrome', '预激综合征', 'sub:WPW'),
    ('sinus rhythm', '窦性心律', 'rhythm:SR'),
    ('sinus bradycardia', '窦性心动过缓', 'rhythm:SBRAD'),
    ('sinus tachycardia', '窦性心动过速', 'rhythm:STACH'),
    ('sinus arrhythmia', '窦性心律不齐', 'rhythm:SARRH'),
    ('atrial fibrillation', '心房颤动', 'rhythm:AFIB'),
    ('atrial flutter', '心房扑动', 'rhythm:AFLT'),
    ('supraventricular arrhythmia', '室上性心律失常', 'rhythm:SVARR'),
    ('bigeminy', '二联律', 'rhythm:BIGU'),
    ('pacemaker', '起搏心律', 'rhythm:PACE'),
    ('ventricular premature beat', '室性早搏', 'form:PVC'),
    ('atrial premature beat', '房性早搏', 'form:PAC'),
    ('abnormal QRS', 'QRS 波异常', 'form:ABQRS'),
    ('Q waves', '病理性 Q 波', 'form:QWAVE'),
    ('voltage of left ventricular hypertrophy', '左心室高电压', 'form:VCLVH'),
    ('high voltage', 'QRS 高电压', 'form:HVOLT'),
    ('low voltage', 'QRS 低电压', 'form:LVOLT'),
    ('ST depression', 'ST 段压低', 'form:STD'),
    ('non-diagnostic T change', '非诊断性 T 波异常', 'form:NDT'),
    ('unspecific T change', '非特异性 T 波改变', 'form:NT'),
    ('low T waves', 'T 波低平', 'form:LOWT'),
    ('inverted T waves', 'T 波倒置', 'form:INVT'),
    ('long PR', 'PR 间期延长', 'form:LPR'),
    ('long QT', 'QT 间期延长', 'form:LNGQT'),
    ('digitalis effect', '洋地黄效应', 'form:DIG'),
    ('first-degree AV block', '一度房室阻滞', 'sub:AVB form:LPR'),
    ('T-wave change', 'T 波改变', _T),
    ('ST change', 'ST 段改变', _ST),
    ('other', '其他', _OTHER),
)


LEAST = 0.2  # the thresholds of rare findings are low: what is less probable is not told
SPECIFIC = [at for at, (_, _, groups) in enumerate(FINDINGS)
            if groups and ' ' not in groups and not groups.startswith('super:')]
SUPERCLASSES = [at for at, (_, _, groups) in enumerate(FINDINGS)
                if groups.startswith('super:') and ' ' not in groups]


@dataclass(frozen=True)
class Found:
    """What was found in some ECGs: float arrays (n, findings) and (findings,)."""
    probabilities: np.ndarray
    thresholds: np.ndarray

    def of(self, index):
        """What is probable enough in one ECG, most probable first; a superclass where nothing of
        it or another is said more exactly: list of (place in FINDINGS, probability)."""
        row = self.probabilities[index]
        for kind in (SPECIFIC, SUPERCLASSES):
            there = [at for at in kind if row[at] >= max(self.thresholds[at], LEAST)]
            if there:
                return [(at, float(row[at])) for at in sorted(there, key=lambda at: -row[at])]
        return []

    def words(self, index):
        """The same in words, with two digits."""
        return ', '.join(f'{FINDINGS[at][0]} {value:.2f}' for at, value in self.of(index))


def findings_of(groups):
    """What some groups of statements say: list of int, 0 or 1 for each of FINDINGS.

    groups: set of str such as 'super:MI'
    """
    said = [int(bool(groups & set(needed.split()))) for _, _, needed in FINDINGS]
    return [int('super:NORM' not in groups), *said[1:]]
