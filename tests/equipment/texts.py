"""The two texts of the conversations that tests read: Arabic, the second fully diacritised."""

REFERENCE_TEXT = "حلو لو سميته حاجة ممكن الأهالي يسمعوه"  # the two texts of document 004, one of them fully diacritised
TARGET_TEXT = "وَمِنْ ثُمَّ قَالُوا أَنَّهُ لا يُوجَدُ إِلا أَنْ نَأْخُذَ سَيَنْسَتِيلْ."
