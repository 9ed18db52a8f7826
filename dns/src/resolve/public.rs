//! Names that a network and a public top-level domain might share.

/// Longer public top-level domains that somebody could call a network; all lower case.
const PUBLIC: &str = "
    academy agency app apps art auto bank bar best bet bid bike bio biz black blog blue boo bot
    box build builders business buy cab cafe cam camera camp capital car cards care cars casa
    cash cat center chat city cleaning click clinic cloud club coach codes coffee college com
    community company computer contact cool cyou data date day deal deals delivery design dev
    diet digital direct directory docs dog domains download earth edu education email energy
    engineer engineering enterprises esq events exchange expert express fail fan farm fast
    feedback film finance financial fit foo food forum foundation free fun fund fyi gallery game
    games garden gift global gold gov graphics gratis green group guide guru health help here
    hiv holdings host hosting hot house how inc industries info ing ink institute int
    international jobs kim kitchen land law lease legal life lighting limited link live llc loan
    lol love ltd management map market marketing markets meet meme menu mil mobi mobile moe mom
    money mov movie museum name net network new news ninja now one ong online ooo open org page
    parts pay pet phone photo photos pics pid pink pizza place play plus press prime pro prod
    productions prof promo pub racing radio read red ren rent repair report rest review reviews
    rip rocks room run safe sale save school science search secure security select services
    sharp shop show site social software solutions space sport spot storage store stream studio
    study style sucks supply support surf systems talk tax team tech technology tel tips tires
    today tools top town toys trade trading training travel trust tube uno video vin vip vision
    wang watch webcam website wiki win work works world wtf xyz you zero zip zone
";

/// Whether a network of this name (lower case) shares it with a public top-level domain.
///
/// Two letters are countries'. A public name missing in the list costs the containers of a network
/// so called the outside names under that domain; one too many lets unknown names under such a
/// network be asked outside.
pub(super) fn could_be_public(network: &[u8]) -> bool {
    (network.len() == 2 && network.iter().all(u8::is_ascii_alphabetic))
        || PUBLIC
            .split_ascii_whitespace()
            .any(|public| public.as_bytes() == network)
}
