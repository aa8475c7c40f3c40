"""Tables with the traps: (reference, answer) with GAIA's verdict, and judges' words with theirs, written by hand."""

from __future__ import annotations

from pinnace.evals import Verdict

R, W = True, False
NUMBERS = [
    ("42", "42", R), ("42", "42.0", R), ("42", " 42 ", R), ("42", "$42", R), ("42", "42%", R), ("42", "4,2", R),
    ("1000", "1,000", R), ("1000", "1000.00", R), ("1000", "1 000", W), ("1000", "1e3", R), ("1000", "one thousand", W),
    ("42", "42.", R), ("42", "042", R), ("42", "+42", R), ("42", "-42", W), ("-42", "-42", R), ("-42", "42", W),
    ("42", "43", W), ("42", "42.0000001", W), ("0.1", "0.10", R), ("0.1", ".1", R), ("0.1", "0,1", W), ("0.1", "10%", W),
    ("3.14", "3.14159", W), ("3.14", "3.14 ", R), ("42", "forty-two", W), ("42", "", W), ("42", "None", W),
    ("42", "The answer is 42", W), ("42", "42 km", W), ("42", "42km", W), ("42", "€42", W), ("42", "£42", W),
    ("42", "$42.00", R), ("17000", "$17,000", R), ("17000", "17,000.0", R), ("17000", "17.000", W), ("17", "17.000", R),
    ("1e3", "1000", R), ("1_000", "1000", R), ("1000", "1_000", R), ("0", "0", R), ("0", "-0", R), ("0", "0.0", R),
    ("0", "", W), ("0", "zero", W), ("42", "42;", W), ("42", "4 2", W), ("42", "(42)", W), ("42", "**42**", W),
    ("89706.00", "89706", R), ("89706.00", "$89,706.00", R), ("2023", "2023", R), ("2023", "2023 AD", W),
    ("inf", "banana", R), ("inf", "inf", R), ("nan", "nan", W), ("12345678901234567890", "12345678901234567891", R),
    ("0.1269", "0.1269", R), ("0.1269", "12.69%", W), ("5", "five", W), ("5", "5/1", W), ("7", "7\n", R), ("7", "\t7", R),
    ("7", "%7$", R), ("7", ",7,", R), ("3", "٣", R), ("42", "42", R), ("42", "4.2e1", R), ("42", "0x2a", W),
]  # fmt: skip
LISTS = [
    ("a, b, c", "a,b,c", R), ("a, b, c", "a, b, c", R), ("a,b,c", "a; b; c", R), ("a; b", "a, b", R), ("a, b", "b, a", W),
    ("a, b", "a", W), ("a, b", "a, b, c", W), ("a, b", "a b", W), ("a, b", "A, B", R), ("a, b", "a and b", W),
    ("1, 2, 3", "1,2,3", R), ("1, 2, 3", "1.0, 2.0, 3.0", R), ("1, 2, 3", "1, 2, 4", W), ("1, 2, 3", "$1, 2%, 3", R),
    ("1, 2", "1; 2", R), ("1, b", "1, B", R), ("1, b", "one, b", W), ("St. Paul, Rome", "St Paul, Rome", W),
    ("St. Paul, Rome", "st.paul,rome", R), ("St. Paul, Rome", "St. Paul,Rome.", W), ("New York, LA", "newyork, la", R),
    ("a, b,", "a, b", W), ("a, b,", "a, b,", R), (",", ",", R), (";", ",", R), ("a,,b", "a,,b", R), ("a,,b", "a,b", W),
    ("1,000", "1000", W), ("1,000", "1,000", R), ("1,000", "1, 0", R), ("10, 20", "10, 20.", R), ("10, 20", "10,20 km", W),
    ("b, e", "b,e", R), ("b, e", "(b, e)", W), ("b, e", "[b, e]", W), ("b, e", "b, e.", W), ("b, e", "\"b, e\"", W),
    ("x; y; z", "x;y;z", R), ("x; y; z", "x,y;z", R), ("x; y; z", "z;y;x", W), ("Smith, John", "John Smith", W),
    ("Smith, John", "smith,john", R), ("a, b", "a,  b", R), ("a, b", "a\n,b", R), ("a, b", "", W), ("a, b", ",", W),
    ("3.5, x", "3.50, X", R), ("3.5, x", "3,5, x", W), ("naïve, b", "naïve, b", R), ("naïve, b", "naive, b", W),
    ("東京, 大阪", "東京,大阪", R), ("東京, 大阪", "東京，大阪", W), ("a, 1", "a, 1", R), ("a, 1", "a, 1.0", R), ("a, 1", "a, i", W),
    ("0, 0", "-0, 0.00", R), ("green, white", "Green, White", R), ("green, white", "green white", W),
    ("132, 133, 134, 197, 245", "132,133,134,197,245", R), ("132, 133, 134, 197, 245", "132, 133, 134, 197 and 245", W),
]  # fmt: skip
STRINGS = [
    ("Paris", "Paris", R), ("Paris", "paris", R), ("Paris", " PARIS ", R), ("Paris", "Paris.", R), ("Paris", "\"Paris\"", R),
    ("Paris", "Pa ris", R), ("Paris", "P-a-r-i-s", R), ("Paris", "Paris, France", W), ("Paris", "The Paris", W),
    ("Paris", "London", W), ("Paris", "", W), ("sea gull", "seagull", R), ("seagull", "sea-gull", R), ("No", "no", R),
    ("No", "Not sure", W), ("No", "No idea", W), ("Yes", "Yes, it is", W), ("A", "a.", R), ("A", "(A)", R), ("A", "A)", R),
    ("A", "Option A", W), ("A", "B", W), ("John Smith", "Smith John", W), ("John Smith", "john  smith", R),
    ("John Smith", "John Q. Smith", W), ("O'Brien", "OBrien", R), ("O'Brien", "O’Brien", W), ("café", "café", R),
    ("café", "cafe", W), ("café", "cafe\u0301", W), ("U.S.A.", "USA", R), ("U.S.A.", "u s a", R), ("3 apples", "3apples", R),
    ("3 apples", "three apples", W), ("3 apples", "3", W), ("42 km", "42km", R), ("42 km", "42", W), ("$5 bill", "5 bill", R),
    ("50% off", "50 off", R), ("C++", "C", R), ("C#", "C", R), ("C", "C++", R), ("...", "", R), ("", "", R), ("", "x", W),
    ("東京", "東京", R), ("東京", "東京。", W), ("東京", " 東 京 ", R), ("東京", "东京", W), ("Straße", "STRASSE", W),
    ("Straße", "straße", R), ("İ", "i", W), ("a_b", "ab", R), ("a_b", "a b", R), ("well-being", "wellbeing", R),
    ("1984 novel", "1984novel", R), ("Louvre", "louvre museum", W), ("17 March 1990", "17march1990", R),
    ("17 March 1990", "March 17 1990", W), ("right", "Right", R), ("right", "left", W), ("\\frac{1}{2}", "frac12", R),
    ("x = 2", "x=2", R), ("x = 2", "2", W), ("Ω", "ω", R), ("ﬁ", "fi", W), ("a\u00a0b", "ab", R), ("a\u200bb", "ab", W),
    ("I. M. Pei", "im pei", R), ("mañana", "MAÑANA", R), ("re: it", "reit", R), ("Q&A", "QA", R), ("50/50", "5050", R),
]  # fmt: skip
PAIRS = NUMBERS + LISTS + STRINGS

READ = [
    ("hle", "correct: yes", Verdict.RIGHT), ("hle", "**correct**: no", Verdict.WRONG), ("hle", "Correct: Yes", Verdict.RIGHT),
    ("hle", "- correct: yes\n", Verdict.RIGHT), ("hle", "incorrect: yes", None), ("hle", "It is correct: yes it is", None),
    ("hle", "correct: yes\ncorrect: no", None), ("hle", "correct: yes, mostly", Verdict.RIGHT), ("hle", "yes", None),
    ("hle", "correct: maybe", None), ("hle", "", None), ("hle", "correct: yesterday", None),
    ("hle", '{"correct": "yes", "confidence": "70%"}', Verdict.RIGHT), ("hle", '{"correct": "no"}', Verdict.WRONG),
    ("hle", '{"correct": true}', None), ("hle", '{"correct": "yes"', None), ("hle", '```json\n{"correct": "no"}\n```', Verdict.WRONG),
    ("letter", "A", Verdict.RIGHT), ("letter", "B", Verdict.WRONG), ("letter", "C", Verdict.WRONG), ("letter", " A.", Verdict.RIGHT),
    ("letter", "A: CORRECT", Verdict.RIGHT), ("letter", "[B]", Verdict.WRONG), ("letter", "CORRECT", Verdict.RIGHT),
    ("letter", "[CORRECT]", Verdict.RIGHT), ("letter", "INCORRECT", Verdict.WRONG), ("letter", "NOT_ATTEMPTED", Verdict.WRONG),
    ("letter", "Answer", None), ("letter", "Because", None), ("letter", "The answer is A", None), ("letter", "", None),
    ("letter", "D", None), ("letter", "AB", None), ("letter", "**A**", Verdict.RIGHT), ("letter", "a", None),
    ("word", "Correct", Verdict.RIGHT), ("word", "incorrect", Verdict.WRONG), ("word", "Correct.", Verdict.RIGHT),
    ("word", "Not correct", None), ("word", "Correct, but", None), ("word", "", None), ("word", "**Incorrect**", Verdict.WRONG),
    ("grade", "EXPLANATION: …\nGRADE: CORRECT", Verdict.RIGHT), ("grade", "GRADE: INCORRECT", Verdict.WRONG),
    ("grade", "I would GRADE: CORRECT at first, but no. GRADE: INCORRECT", Verdict.WRONG), ("grade", "CORRECT", None),
    ("grade", "GRADE: CORRECTLY", None), ("decision", "Explanation: x\nDecision: TRUE", Verdict.RIGHT),
    ("decision", '"Decision": "FALSE"', Verdict.WRONG), ("decision", "Decision: TRUEISH", None), ("decision", "TRUE", None),
    ("conclusion", "最终答案: 2\n解释: 一致\n结论: 正确", Verdict.RIGHT), ("conclusion", "结论：错误", Verdict.WRONG),
    ("conclusion", "结论: 不正确", None), ("conclusion", "正确", None), ("conclusion", "结论: 正确\n结论: 错误", None),
    ("conclusion", "**结论**: **正确**", Verdict.RIGHT), ("conclusion", "结论: “错误”", Verdict.WRONG), ("conclusion", "", None),
]  # fmt: skip
