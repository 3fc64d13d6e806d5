"""What the voices say, written for Chorale. By set, then by voice of espeak-ng: no language is in both sets."""

TEXTS = {
    "train": {
        "en-us": [
            "The meeting has been moved to Thursday at half past ten, because the large room is being painted.",
            "Please bring the figures for the second quarter, and a printed copy of the contract.",
            "Rain is expected in the north by the evening, with temperatures falling to six degrees.",
            "My neighbour keeps bees behind the garage and gives every visitor a jar of honey.",
            "If you would like to speak to a colleague, press two; to hear this message again, stay on the line.",
        ],
        "de": [
            "Der Zug nach Hannover fährt heute von Gleis sieben, bitte beachten Sie die geänderte Wagenreihung.",
            "Wir haben gestern lange über den Garten gesprochen und dann doch nur den Zaun gestrichen.",
            "Am Nachmittag ziehen Wolken auf, im Bergland kann es vereinzelt Gewitter geben.",
        ],
        "fr-fr": [
            "Le boulanger ouvre à six heures et il ne reste souvent plus rien à midi.",
            "Nous vous prions de laisser un message après le signal et nous vous rappellerons demain.",
            "La bibliothèque sera fermée pendant les travaux, mais la salle de lecture reste ouverte.",
        ],
        "nl": [
            "De brug gaat over vijf minuten open, dus we kunnen beter even koffie drinken.",
            "Mijn zus heeft een fiets gekocht die zwaarder is dan de kar van de melkboer.",
            "Morgen is het droog, met veel wind uit het westen en af en toe zon.",
        ],
        "pl": [
            "Proszę zamknąć okno, bo na korytarzu jest przeciąg i dokumenty spadają ze stołu.",
            "W sobotę pojedziemy do babci i pomożemy jej zebrać jabłka z sadu.",
            "Sklep na rogu jest otwarty od siódmej rano do dziesiątej wieczorem.",
        ],
        "sv": [
            "Båten går klockan åtta och kommer fram till ön strax före lunch.",
            "Vi måste köpa bröd, ost och en ny lampa till köket innan gästerna kommer.",
        ],
        "tr": [
            "Yarın sabah erkenden pazara gideceğiz ve akşam için taze balık alacağız.",
            "Toplantı saat üçte başlayacak, lütfen raporları yanınızda getirin.",
        ],
        "el": [
            "Το λεωφορείο για το λιμάνι φεύγει κάθε είκοσι λεπτά από την πλατεία.",
            "Ο γιατρός είπε ότι πρέπει να πίνω περισσότερο νερό και να περπατώ κάθε μέρα.",
        ],
        "hi": [
            "कल सुबह दस बजे दफ़्तर में बैठक है, कृपया समय पर पहुँचें।",
            "बाज़ार में आज आम बहुत सस्ते हैं, इसलिए हमने दो किलो ख़रीदे।",
        ],
        "cmn-latn-pinyin": [
            "ming2 tian1 shang4 wu3 wo3 men5 qu4 tu2 shu1 guan3 kan4 shu1",
            "jin1 tian1 de5 tian1 qi4 hen3 hao3 hai2 zi5 men5 zai4 gong1 yuan2 li3 wan2",
        ],
    },
    "test": {
        "en-gb-scotland": [
            "Nobody has seen the ferry since the fog came down, so the mail will have to wait.",
            "She measured the shelf twice and cut it once, and still it did not fit behind the door.",
            "The next item on the agenda is the budget for mending the roof of the village hall.",
            "You will find the keys under the blue pot, and the instructions for the boiler on the fridge.",
        ],
        "es": [
            "El médico llega a las nueve, pero la sala de espera ya está llena a las ocho.",
            "Ayer perdimos el último autobús y tuvimos que volver a casa caminando por la playa.",
            "Para renovar el carné necesita una fotografía reciente y un recibo de la luz.",
        ],
        "it": [
            "Il treno per Bologna è in ritardo di venti minuti a causa di un guasto.",
            "Mio nonno coltiva i pomodori sul balcone e li regala a tutto il palazzo.",
            "Si avvisano i signori passeggeri che il bar chiude alle nove di sera.",
        ],
        "pt-br": [
            "A reunião foi adiada para segunda-feira porque o diretor está viajando.",
            "Precisamos trocar a lâmpada da varanda antes que os convidados cheguem.",
        ],
        "ru": [
            "Завтра утром мы поедем на дачу и соберём последние яблоки.",
            "Магазин закрыт на обед, приходите, пожалуйста, после двух часов.",
        ],
        "da": [
            "Bussen holder ved kirken, og derfra er der kun fem minutter at gå.",
            "Han glemte sin paraply i toget, og nu regner det hele vejen hjem.",
        ],
        "fi": [
            "Sauna lämpenee kello viisi, ja sen jälkeen syömme keittoa ja leipää.",
            "Kirje tuli eilen, mutta avasin sen vasta tänään aamukahvilla.",
        ],
        "cs": [
            "Klíče od sklepa visí vedle dveří a baterka leží na polici.",
            "V neděli pojedeme na výlet, pokud nebude pršet celý den.",
        ],
        "hu": [
            "A vonat a harmadik vágányról indul, kérjük, vigyázzanak a szerelvény mellett.",
            "Holnap délután meglátogatjuk a nagymamát, és viszünk neki süteményt.",
        ],
        "vi": [
            "Sáng mai chúng tôi sẽ đi chợ sớm để mua rau và cá tươi.",
            "Xin vui lòng để lại lời nhắn, chúng tôi sẽ gọi lại sau.",
        ],
    },
}
