"""Pairs that have broken tokenizers, truncation or half precision before, in many languages and lengths."""

LONG = "The giant panda eats bamboo in the mountain forests of central China. " * 834  # 10,008 words

PAIRS = [
    ("what is panda?", "hi"),
    (
        "what is panda?",
        "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear or simply panda, is a bear species "
        "endemic to China.",
    ),
    ("", ""),
    ("", "only a document"),
    ("only a query", ""),
    (" ", "\n\t "),
    ("🐼🎋", "🐼 eats 🎋🎋🎋, 👩‍👩‍👧‍👦 watch 🇨🇳"),
    ("大熊猫吃什么？", "大熊猫是生活在中国中部山林里的熊，几乎只吃竹子。"),
    ("パンダは何を食べますか", "ジャイアントパンダは竹を食べる。"),
    ("ماذا يأكل الباندا؟", "يتغذى الباندا العملاق على الخيزران وحده تقريبا."),
    ("Что едят панды?", "Большая панда питается почти исключительно бамбуком."),
    ("पांडा क्या खाता है?", "विशाल पांडा लगभग केवल बाँस खाता है।"),
    ("แพนด้ากินอะไร", "แพนด้ายักษ์กินไผ่เกือบทั้งหมด"),
    ("what does a panda eat?", LONG),
    ("panda " * 1000, "A query that is longer than the whole pair may be."),
    (LONG, LONG),
    ("control\x00\x01\x02\x07\x1b characters", "bell\x07 null\x00 escape\x1b[31m delete\x7f next\x85line"),
    ("special <s> </s> <pad> <mask> <unk> tokens", "in </s></s> the <pad><pad> text <s>"),
    ("ﬁne ① ｆｕｌｌ ｗｉｄｔｈ", "compatibility forms: ㎏ ﷺ ½ ²"),
    ("zero\u200bwidth \u202eright to left\u202c", "non\u00a0breaking \ufeff mark"),
    ("𝕎𝕙𝕒𝕥", "\U0001f9ff rare: ꙮ 𓀀"),
    ("a" * 3000, "unbroken " + "x" * 3000),
]
