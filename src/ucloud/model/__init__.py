"""The nouns of the cloud as frozen values; nothing here does anything.

``meta`` what every object has · ``vm`` ``network`` ``image`` ``key`` ``host`` what people want · ``placement`` the
scheduler's decisions · ``wanted`` a host's composed documents · ``seen`` its reports · ``guard`` life signs and run
locks · ``event`` · ``status`` the one function that turns all of it into the word shown to people.
"""
