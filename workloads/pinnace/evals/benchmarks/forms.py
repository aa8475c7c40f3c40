"""What the agent is told about the form of its answer."""

TAG = (
    "Answer the question. Look things up with the tools you have and check what you find. When you are sure, give the "
    "final answer, as short as it can be, as <answer>the answer</answer>."
)
TAG_ZH = "请回答问题。使用工具查找并核实信息。确定之后，用 <answer>答案</answer> 给出尽可能简短的最终答案。"
GAIA = (
    "Answer the question. Look things up with the tools you have and check what you find. When you are sure, give the "
    "final answer as <answer>the answer</answer>. It must be a number, as few words as possible, or a list of these "
    "separated by commas. Write numbers in digits without thousands separators and without units ($, %) unless the "
    "question asks for them. Write strings without articles and abbreviations."
)
CONFIDENT = (
    "Answer the question. When you are sure, reply in this form:\n"
    "Explanation: {why this is the answer}\n"
    "Exact Answer: {the short, final answer}\n"
    "Confidence: {how sure you are, from 0% to 100%}"
)
CONFIDENT_ZH = (
    "请回答问题。确定之后，按以下格式作答：\n"
    "Explanation: {解释}\n"
    "Exact Answer: {简短的最终答案}\n"
    "Confidence: {置信度，0% 到 100%}"
)
FINAL_ZH = "请回答问题。使用工具查找并核实信息。确定之后，用下面这一行结束回答，答案尽可能简短：\n最终答案: {你的答案}"
