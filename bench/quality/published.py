"""Figures of the paper that comes with the texts: Hutto and Gilbert, VADER, ICWSM 2014, tables 4 and 5."""

OVERALL_F1 = {
    "tweets": {
        "VADER, whose rules were made for tweets": 0.96,
        "single people": 0.84,
        "naive Bayes, trained on half": 0.84,
        "maximum entropy, trained on half": 0.83,
        "support vector machine, trained on half": 0.83,
        "Hu-Liu04, the best other lexicon": 0.77,
    },
    "product reviews": {
        "single people": 0.85,
        "VADER": 0.63,
        "Hu-Liu04, the best other lexicon": 0.62,
        "naive Bayes, trained on half": 0.61,
        "maximum entropy, trained on half": 0.60,
        "support vector machine, trained on half": 0.58,
    },
}
"""Overall F1 of three classes, as printed."""

NOTE = """\
The paper's figures are the overall F1 of tables 4 and 5 in Hutto and Gilbert, VADER: A Parsimonious Rule-based Model
for Sentiment Analysis of Social Media Text (ICWSM 2014). It does not say how classes are averaged, which half was held
out, or where the ratings' neutral class ends; here it is a mean rating between -0.5 and 0.5. So the figures stand
beside each other as a scale, not as a race."""
