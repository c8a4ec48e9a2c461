"""Words and facts that make_dataset.py builds its samples from. All of it was written for this project."""

NAMES = """Anna Boris Clara David Emma Felix Grace Hugo Irene Jonas Karin Lucas Maria Nora Oscar Paula Quinn Rosa
Simon Tessa Victor Wanda Yusuf Zoe Adam Bella Carlos Diana Erik Fatima""".split()

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "Portugal": "Lisbon",
    "Austria": "Vienna", "Greece": "Athens", "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki",
    "Denmark": "Copenhagen", "Poland": "Warsaw", "Hungary": "Budapest", "Ireland": "Dublin", "Iceland": "Reykjavik",
    "Japan": "Tokyo", "China": "Beijing", "India": "Delhi", "Egypt": "Cairo", "Kenya": "Nairobi", "Peru": "Lima",
    "Chile": "Santiago", "Cuba": "Havana", "Canada": "Ottawa", "Brazil": "Brasilia", "Turkey": "Ankara",
    "Russia": "Moscow", "Ukraine": "Kyiv", "Belgium": "Brussels", "Bulgaria": "Sofia", "Romania": "Bucharest",
    "Croatia": "Zagreb", "Serbia": "Belgrade", "Morocco": "Rabat", "Ghana": "Accra", "Iran": "Tehran",
    "Iraq": "Baghdad", "Nepal": "Kathmandu", "Thailand": "Bangkok", "Vietnam": "Hanoi",
}
CITIES = sorted(CAPITALS.values())

ANTONYMS = {
    "hot": "cold", "big": "small", "fast": "slow", "light": "dark", "happy": "sad", "early": "late", "open": "closed",
    "full": "empty", "strong": "weak", "rich": "poor", "young": "old", "high": "low", "near": "far", "soft": "hard",
    "wet": "dry", "clean": "dirty", "long": "short", "thick": "thin", "wide": "narrow", "loud": "quiet",
    "sweet": "bitter", "true": "false", "brave": "afraid", "easy": "difficult", "cheap": "expensive",
    "deep": "shallow", "sharp": "blunt", "polite": "rude", "safe": "dangerous", "smooth": "rough",
}
ANTONYMS |= {opposite: word for word, opposite in ANTONYMS.items()}

PLURALS = {
    "child": "children", "mouse": "mice", "foot": "feet", "tooth": "teeth", "goose": "geese", "man": "men",
    "woman": "women", "city": "cities", "baby": "babies", "story": "stories", "leaf": "leaves", "knife": "knives",
    "wolf": "wolves", "box": "boxes", "bus": "buses", "glass": "glasses", "dish": "dishes", "church": "churches",
    "potato": "potatoes", "hero": "heroes", "lamp": "lamps", "river": "rivers", "garden": "gardens",
    "window": "windows", "sheep": "sheep", "fish": "fish", "party": "parties", "shelf": "shelves",
    "country": "countries", "watch": "watches",
}

TRANSLATIONS = {
    "German": {
        "house": "Haus", "water": "Wasser", "girl": "Mädchen", "bread": "Brot", "door": "Tür", "king": "König",
        "green": "grün", "street": "Straße", "tree": "Baum", "apple": "Apfel", "friend": "Freund", "night": "Nacht",
        "book": "Buch", "milk": "Milch", "sun": "Sonne", "dog": "Hund", "cat": "Katze", "bird": "Vogel",
    },
    "Spanish": {
        "house": "casa", "water": "agua", "girl": "niña", "bread": "pan", "door": "puerta", "king": "rey",
        "green": "verde", "street": "calle", "tree": "árbol", "apple": "manzana", "friend": "amigo", "night": "noche",
        "book": "libro", "milk": "leche", "sun": "sol", "dog": "perro", "cat": "gato", "bird": "pájaro",
    },
    "French": {
        "house": "maison", "water": "eau", "girl": "fille", "bread": "pain", "door": "porte", "king": "roi",
        "green": "vert", "street": "rue", "tree": "arbre", "apple": "pomme", "friend": "ami", "night": "nuit",
        "book": "livre", "milk": "lait", "sun": "soleil", "dog": "chien", "cat": "chat", "bird": "oiseau",
    },
    # Three UTF-8 bytes a character: a streaming decoder meets characters that are split over tokens.
    "Japanese": {
        "house": "家", "water": "水", "girl": "少女", "bread": "パン", "door": "戸", "king": "王",
        "green": "緑", "street": "通り", "tree": "木", "apple": "りんご", "friend": "友達", "night": "夜",
        "book": "本", "milk": "牛乳", "sun": "太陽", "dog": "犬", "cat": "猫", "bird": "鳥",
    },
}

CATEGORIES = {
    "fruit": "apple banana cherry lemon orange peach pear plum grape melon".split(),
    "animal": "horse lion tiger rabbit camel donkey eagle whale snake monkey".split(),
    "tool": "hammer drill ladder shovel wrench chisel axe pliers rake saw".split(),
    "colour": "red blue green yellow purple brown white black pink grey".split(),
    "vehicle": "car train tram boat truck bicycle plane ferry tractor van".split(),
    "instrument": "piano violin guitar flute drum trumpet harp cello organ oboe".split(),
}
CATEGORY_OF = {word: category for category, words in CATEGORIES.items() for word in words}

# Words for the list tasks (sort, reverse, count, pick, spell, upper case).
WORDS = sorted(
    set(
        """lamp river garden window basket bottle candle carpet castle circle cloud coffee corner desert doctor dragon
        engine farmer feather finger flower forest hammer island jacket kettle kitchen letter market mirror mountain
        needle ocean orange paper pencil picture pillow pocket queen rabbit ribbon rocket sailor school shadow silver
        spider spring station stone summer table teacher ticket tiger tower tunnel valley village violin wagon water
        whistle winter wizard yellow zebra anchor bridge camera diamond eagle falcon guitar harbor""".split()
    )
)

GOODS = """apples lamps books chairs pencils candles shirts plates cups clocks carrots onions ribbons tickets stamps
blankets baskets mirrors brushes hammers""".split()

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
JOBS = "baker teacher doctor farmer painter sailor gardener driver singer lawyer nurse writer".split()
HOBBIES = """playing chess|riding horses|baking bread|reading novels|climbing mountains|growing roses|playing the
piano|collecting stamps|painting boats|watching birds|repairing clocks|dancing at night""".replace("\n", " ").split("|")

# verb phrase: present, past
VERBS = {
    "walks to the market": "walked to the market", "reads a long letter": "read a long letter",
    "writes a short story": "wrote a short story", "eats a green apple": "ate a green apple",
    "drinks a cup of tea": "drank a cup of tea", "sings an old song": "sang an old song",
    "buys a new lamp": "bought a new lamp", "sells the blue car": "sold the blue car",
    "opens the kitchen window": "opened the kitchen window", "closes the garden gate": "closed the garden gate",
    "finds a silver ring": "found a silver ring", "loses the house key": "lost the house key",
    "builds a wooden boat": "built a wooden boat", "breaks a white plate": "broke a white plate",
    "paints the front door": "painted the front door", "carries a heavy box": "carried a heavy box",
    "teaches the small children": "taught the small children", "catches the early train": "caught the early train",
    "forgets the shopping list": "forgot the shopping list", "remembers the old song": "remembered the old song",
    "makes a bowl of soup": "made a bowl of soup", "takes a photo of the lake": "took a photo of the lake",
    "gives a book to a friend": "gave a book to a friend", "sees a ship in the harbor": "saw a ship in the harbor",
}
PLACES = """in the morning|in the evening|after lunch|before dinner|on the way home|during the holidays|at the
station|with a friend""".replace("\n", " ").split("|")

GOOD_WORDS = "wonderful excellent delicious lovely charming helpful perfect superb".split()
BAD_WORDS = "terrible awful horrible boring broken noisy dreadful useless".split()
REVIEWED = "food hotel film service room music book phone concert garden waiter camera".split()
REVIEW_FILLERS = """We went there on a rainy day.|My sister came with me.|It took an hour to get there.|We had read
about it in the newspaper.|There were many people.|I had waited for it since spring.|It was near the station.|We
stayed until the evening.""".replace("\n", " ").split("|")

DECISIONS = """buy a new printer|paint the meeting room|hire two more drivers|move the office to the harbor|close the
shop on Sundays|start a reading club|repair the old bridge|plant forty trees|print a map of the village|change the
opening hours|invite the mayor to lunch|build a larger kitchen""".replace("\n", " ").split("|")
NOTE_FILLERS = """The room was cold and the coffee was late.|Two people joined by telephone.|The minutes of the last
meeting were read aloud.|There was a long talk about the weather.|Someone had brought a cake.|The projector did not
work at first.|A visitor asked many questions.|The budget for the summer was shown on a slide.|Nobody wanted to sit
near the open window.|The chairman thanked everyone for coming.|A dog barked outside for ten minutes.|The plan was
explained with a drawing on the wall.""".replace("\n", " ").split("|")

DESCRIPTIONS = {
    "lion": "A lion is a large wild cat that lives in the grassland, hunts in a group and sleeps most of the day.",
    "camel": "A camel is a tall animal with a hump that lives in the desert and can walk for days without water.",
    "eagle": "An eagle is a large bird with sharp eyes that builds its nest on high rocks and hunts small animals.",
    "whale": "A whale is a very large animal that lives in the ocean, breathes air and sings to its family.",
    "rabbit": "A rabbit is a small animal with long ears that lives under the ground and eats grass and carrots.",
    "spider": "A spider is a small animal with eight legs that makes a web of silk and waits there for insects.",
    "penguin": "A penguin is a black and white bird that cannot fly but swims very well in the cold sea.",
    "elephant": "An elephant is a huge grey animal with a long trunk that eats plants and remembers old paths.",
    "bee": "A bee is a small insect that visits flowers, makes honey and lives with thousands of others in a hive.",
    "wolf": "A wolf is a wild animal like a large dog that lives in the forest and hunts together with its family.",
    "volcano": "A volcano is a mountain with an opening at the top from which hot rock, ash and gas come out.",
    "library": "A library is a quiet place where people can read books, borrow them and bring them back later.",
    "bridge": "A bridge is a structure that carries a road or a path over a river, a valley or a railway.",
    "compass": "A compass is a small instrument with a needle that always points to the north and shows the way.",
    "telescope": "A telescope is an instrument with lenses that makes the moon, the planets and the stars look near.",
    "bakery": "A bakery is a shop where bread and cakes are made in a hot oven early in the morning and then sold.",
    "lighthouse": "A lighthouse is a tall tower by the sea with a strong light that warns ships of the rocks.",
    "umbrella": "An umbrella is a round roof of cloth on a stick that people hold over their heads in the rain.",
    "dentist": "A dentist is a doctor who looks after teeth, repairs holes in them and tells people to brush.",
    "glacier": "A glacier is a large river of ice that moves slowly down a valley and melts at its lower end.",
}

HOW_TO = {
    "make a cup of tea": "First, boil the water. Then pour it over the tea leaves and wait four minutes. Finally, "
    "take out the leaves and add milk or sugar.",
    "plant a tree": "First, dig a wide hole. Then put the roots into it and fill it with soil. Finally, give the tree "
    "plenty of water.",
    "paint a door": "First, clean the door and sand it. Then paint it from top to bottom with a soft brush. Finally, "
    "let it dry for a whole day.",
    "write a letter": "First, write the date and a greeting. Then say in a few sentences what happened. Finally, sign "
    "it with your name and put a stamp on it.",
    "bake bread": "First, mix flour, water, salt and yeast. Then let the dough rest for an hour. Finally, bake it in a "
    "hot oven until the crust is brown.",
    "wash a sweater": "First, fill a bowl with cool water and a little soap. Then move the sweater gently in it. "
    "Finally, rinse it and lay it flat to dry.",
    "repair a bicycle tyre": "First, take off the wheel and pull out the tube. Then find the hole and cover it with a "
    "patch. Finally, put the tube back and pump it up.",
    "make an omelette": "First, beat three eggs with some salt. Then melt butter in a pan and pour in the eggs. "
    "Finally, fold it in half and serve it at once.",
    "clean a window": "First, wipe off the dust with a dry cloth. Then wash the glass with warm water and vinegar. "
    "Finally, dry it with a newspaper.",
    "pack a suitcase": "First, make a list of what you need. Then roll the clothes and put the shoes at the bottom. "
    "Finally, close it and write your name on it.",
    "learn a poem": "First, read the whole poem aloud. Then learn it line by line and repeat each line three times. "
    "Finally, say it to a friend without the book.",
    "light a campfire": "First, put stones around a dry place. Then build a small tower of thin sticks over dry grass. "
    "Finally, light the grass and add larger wood.",
}

GIFTS = {
    "book": "I will read it every evening", "scarf": "I will wear it all winter",
    "lamp": "it already stands on my desk", "cake": "we ate it to the last crumb",
    "plant": "it has found a sunny place at the window", "teapot": "I use it every morning",
    "camera": "I have taken many photos with it", "chess set": "we play with it every weekend",
    "blanket": "it keeps me warm at night", "picture": "it hangs over the kitchen table",
}
