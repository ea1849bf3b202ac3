"""The closed vocabulary of the quickstart tasks: word lists and tables."""

NAMES = tuple("Anna Ben Clara David Emma Frank Grace Henry".split())
CITIES = tuple("Paris London Rome Berlin Madrid Oslo Cairo Tokyo".split())
COLORS = tuple("red blue green yellow black white brown pink".split())
JOBS = tuple("nurse teacher farmer baker doctor pilot singer lawyer".split())
THINGS = tuple("hat book lamp chair coat cup bag clock".split())
FOODS = tuple("soup cake bread rice fruit salad pizza pasta".split())
ANIMALS = tuple("cat dog horse cow pig sheep goat duck fox bear".split())

SENTIMENT_THINGS = tuple(
    "film book meal hotel song game phone play garden coat lamp train party lesson car trip".split()
)
SENTIMENT = {
    "positive": tuple("great lovely wonderful superb perfect amazing charming pleasant".split()),
    "negative": tuple("awful terrible horrible boring ugly nasty dreadful useless".split()),
    "neutral": tuple("average ordinary okay typical usual normal plain common".split()),
}

# Topic -> (subjects, verbs, objects): any three make a sentence.
TOPICS = {
    "sport": ("team player coach runner", "won lost practised watched", "match race game final"),
    "cooking": ("cook chef baker waiter", "fried boiled tasted served", "soup bread fish rice"),
    "music": ("singer band pianist choir", "sang played wrote heard", "song tune waltz anthem"),
    "school": ("teacher pupil student class", "studied read failed passed",
               "lesson exam essay test"),
    "farming": ("farmer shepherd gardener miller", "planted watered picked sold",
                "wheat corn hay barley"),
    "travel": ("tourist pilot sailor driver", "booked missed boarded steered",
               "flight ferry plane bus"),
}  # fmt: skip

FEELINGS = {
    "happy": ("won a prize", "got a present", "passed the exam", "met an old friend",
              "found a new job", "had a birthday party"),
    "sad": ("lost a pet", "said goodbye to a friend", "missed home", "failed the exam",
            "broke a favourite cup", "cried all night"),
    "angry": ("was cheated", "was shouted at", "got an unfair bill", "was pushed in the queue",
              "had a bike stolen", "was lied to"),
    "afraid": ("heard a strange noise", "saw a big snake", "got lost in the dark", "met a bear",
               "dreamed of ghosts", "stood near a cliff"),
    "tired": ("worked all night", "walked twenty miles", "slept two hours", "ran a long race",
              "carried heavy boxes", "dug the whole garden"),
    "bored": ("waited for hours", "had nothing to do", "heard the same talk again",
              "stared at the wall", "sat in a dull meeting", "watched paint dry"),
}  # fmt: skip

# Intent -> (requests, words for {x}).
INTENTS = {
    "alarm": (("wake me at {x}", "set a bell for {x}", "get me up by {x}"),
              "six seven eight nine noon midnight dawn sunrise"),
    "weather": (("will it rain in {x}", "is it cold in {x}", "do I need an umbrella in {x}"),
                "Paris London Rome Berlin Madrid Oslo Cairo Tokyo"),
    "music": (("play some {x}", "put on {x}", "I want to hear {x}"),
              "jazz rock opera blues folk techno disco soul"),
    "call": (("ring {x}", "I want to talk to {x}", "phone {x}"),
             "Anna Ben Clara David Emma Frank Grace Henry"),
    "food": (("order {x}", "get me {x} for dinner", "I am hungry for {x}"),
             "pizza sushi pasta soup salad curry noodles tacos"),
    "light": (("switch on the lamp in the {x}", "make the {x} brighter",
               "it is too dark in the {x}"),
              "kitchen hall garage bedroom cellar bathroom attic office"),
}  # fmt: skip
POLITE = ("please {x}", "could you {x}", "hey, {x}", "{x} now", "{x}, thanks", "quickly, {x}",
          "{x} if you can", "well, {x}", "so {x}", "hello, {x}", "{x} for me",
          "oh, {x}")  # fmt: skip

MONTHS = tuple(
    "January February March April May June July August September October November December".split()
)
# The season of each month.
SEASONS = ("winter",) * 2 + ("spring",) * 3 + ("summer",) * 3 + ("autumn",) * 3 + ("winter",)
DAYS = tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())
