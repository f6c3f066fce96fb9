"""What the report says, in English and in Chinese."""

from utils.answers.findings import FINDINGS

LANGUAGES = ('en', 'zh')
CLASSES = {'normal': '正常', **{english: chinese for english, chinese, _ in FINDINGS}}
TEXTS = {
    'title': ('ECG report', '心电图分析报告'),
    'warning': ("A network's answers about ECGs, to be looked at by somebody who reads ECGs; not a "
                "doctor's diagnosis.", '以下是神经网络对心电图的判断，须由能阅读心电图的人核对，不能代替医生诊断。'),
    'model': ('Model', '模型'), 'trained': ('Iterations', '迭代次数'),
    'drawn': ('Picture', '图片'), 'made': ('Made', '生成时间'),
    'answers': ('This answer', '本次结果'), 'all': ('all', '全部'),
    'unsure': ('unsure', '不确定'), 'sure': ('sure', '确定'),
    'wrong': ('wrong', '错误'), 'right': ('right', '正确'), 'noted': ('with a note', '有备注'),
    'validation': ('Validation records', '验证集'), 'score': ('score', '指标'),
    'value': ('value', '数值'), 'interval': ('95 % interval', '95 % 置信区间'),
    'accuracy': ('accuracy', '准确率'), 'mean F1': ('mean F1', '平均 F1'),
    'sensitivity': ('sensitivity', '灵敏度'), 'specificity': ('specificity', '特异度'),
    'reliability': ('Do the probabilities mean what they say?', '概率是否可信？'),
    'says': ('probability that is said', '预测概率'), 'is': ('part that is true', '实际比例'),
    'before': ('before calibration', '校准前'), 'after': ('after it, as shown here', '校准后（本报告所用）'),
    'temperature': ('temperature', '温度'), 'error': ('calibration error', '期望校准误差'),
    'promised': ('Of the {outside} validation records (of {count}) that were surer than the unsure '
                 'ones, {right} were right. So of new records like them about {sure} of the sure '
                 'answers will be right, on average.',
                 '{count} 条验证记录中有 {outside} 条为“确定”，其中 {right} 条判断正确。'
                 '因此对同类新记录，“确定”的判断平均约有 {sure} 是正确的。'),
    'unpromised': ('Of the {outside} validation records (of {count}) that were surer than the '
                   'unsure ones, {right} were right: too few records to promise {sure} for new '
                   'ones.', '{count} 条验证记录中有 {outside} 条为“确定”，其中 {right} 条判断正确；'
                   '记录太少，不能保证新记录达到 {sure}。'),
    'hopeless': ('Not even the surest answers on the {count} validation records were right in '
                 '{sure} of the cases: every answer counts as unsure.',
                 '{count} 条验证记录中，即使最确定的判断也达不到 {sure} 的正确率：所有结果都视为不确定。'),
    'scores': ('Scores of this answer', '本次结果的得分'), 'truth': ('truth', '真实'),
    'answer': ('answer', '判断'), 'found': ('found', '检出'),
    'missed': ('missed', '漏检'), 'alarms': ('false alarms', '误报'),
    'records': ('All records', '全部记录'), 'name': ('name', '名称'),
    'probability': ('probability', '概率'), 'of_abnormal': ('probability of abnormal', '异常概率'),
    'certainty': ('certainty', '确定程度'), 'notes': ('notes', '备注'),
    'findings': ('findings', '所见'),
    'search': ('search names and answers', '搜索名称或结果'), 'show': ('show', '显示'),
    'ecgs': ('ECGs to look at', '值得查看的心电图'),
    'shown': ('{shown} of {count}: the wrong ones first, then the unsure ones, then sure ones of '
              'each kind.', '共 {count} 条中的 {shown} 条：先是错误的，其次是不确定的，最后是各类确定的例子。'),
    'shown_plain': ('{shown} of {count}: the unsure ones first, then sure ones of each kind.',
                    '共 {count} 条中的 {shown} 条：先是不确定的，然后是各类确定的例子。'),
    'legend': ('Beside each lead: by how much the answer falls when the network sees 0 mV there. '
               'Below each second: by how much it rises when the network, instead of nothing, sees '
               'this second alone. The numbers are log-odds. That is what the network used, which '
               'need not be what a doctor would look at.',
               '每个导联右侧：该导联变为 0 mV 时判断下降多少；每秒下方：与什么都看不到相比，只看到这一秒时判断上升多少。'
               '数值为对数几率。这只说明网络依据了什么，不一定是医生会看的地方。'),
    'for': ('speaks for it', '支持'), 'against': ('speaks against it', '反对'),
    'mattered': ('{what} {probability}; without {lead}, which matters most, {without}; second '
                 '{second} says most by itself.',
                 '{what} {probability}；影响最大的导联是 {lead}（去掉后为 {without}）；'
                 '单独看时最支持该判断的是第 {second} 秒。'),
    'picture': ("The network's own picture, enlarged: the record itself is not there any more.",
                '原始记录已不在，此处为放大的网络输入图片。'),
    'sheet': ('The picture that was read, and in colour the traces that were found in it.',
              '读入的图片；彩色线条为从中识别出的波形。'),
    'scale': ('25 mm/s, 10 mm/mV', '25 mm/s，10 mm/mV'),
}
