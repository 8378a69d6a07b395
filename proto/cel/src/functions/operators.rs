//! `+ - * / % == != < <= > >= in ! -` and `size`. Integers that overflow are errors, never wrap.

use super::Declared;
use crate::{
    EvalError, Value,
    equality::{self, equal},
    eval::{Cx, Evaluated},
    functions::time,
    value::compare_numbers,
};
use std::cmp::Ordering;

pub(super) const FUNCTIONS: &[Declared] = &[
    (
        "_+_",
        "(int,int) int | (uint,uint) uint | (double,double) double | (string,string) string | \
         (bytes,bytes) bytes | (list<A>,list<A>) list<A> | (timestamp,duration) timestamp | \
         (duration,timestamp) timestamp | (duration,duration) duration",
        add,
    ),
    (
        "_-_",
        "(int,int) int | (uint,uint) uint | (double,double) double | \
         (timestamp,timestamp) duration | (timestamp,duration) timestamp | \
         (duration,duration) duration",
        subtract,
    ),
    ("_*_", "(int,int) int | (uint,uint) uint | (double,double) double", multiply),
    ("_/_", "(int,int) int | (uint,uint) uint | (double,double) double", divide),
    ("_%_", "(int,int) int | (uint,uint) uint", modulo),
    ("-_", "(int) int | (double) double", negate),
    ("!_", "(bool) bool", not),
    ("_==_", "(A,A) bool", |cx, args| Ok(Value::Bool(equal(cx, &args[0], &args[1])?))),
    ("_!=_", "(A,A) bool", |cx, args| Ok(Value::Bool(!equal(cx, &args[0], &args[1])?))),
    ("_<_", ORDERED, |_, args| order(args, Ordering::is_lt)),
    ("_<=_", ORDERED, |_, args| order(args, Ordering::is_le)),
    ("_>_", ORDERED, |_, args| order(args, Ordering::is_gt)),
    ("_>=_", ORDERED, |_, args| order(args, Ordering::is_ge)),
    ("@in", "(A,list<A>) bool | (A,map<A,B>) bool", within),
    (
        "size",
        "(string) int | (bytes) int | (list<A>) int | (map<A,B>) int | string.() int | \
         bytes.() int | list<A>.() int | map<A,B>.() int",
        size,
    ),
];

const ORDERED: &str = "(bool,bool) bool | (int,int) bool | (uint,uint) bool | \
    (double,double) bool | (string,string) bool | (bytes,bytes) bool | \
    (timestamp,timestamp) bool | (duration,duration) bool | (int,uint) bool | (int,double) bool | \
    (uint,int) bool | (uint,double) bool | (double,int) bool | (double,uint) bool";

fn overflow() -> EvalError {
    EvalError::new("integer overflow")
}

fn overflow_unsigned() -> EvalError {
    EvalError::new("unsigned integer overflow")
}

pub(super) fn add<'a>(cx: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    use Value::{Bytes, Double, Duration, Int, List, String, Timestamp, Uint};
    Ok(match args {
        [Int(a), Int(b)] => Int(a.checked_add(*b).ok_or_else(overflow)?),
        [Uint(a), Uint(b)] => Uint(a.checked_add(*b).ok_or_else(overflow_unsigned)?),
        [Double(a), Double(b)] => Double(a + b),
        [String(a), String(b)] => Value::string([a.as_str(), b.as_str()].concat()),
        [Bytes(a), Bytes(b)] => Bytes([&**a, &**b].concat().into()),
        [List(a), List(b)] => equality::concat(cx, a, b)?,
        [Duration(a), Duration(b)] => Duration(a.checked_add(*b).ok_or_else(overflow)?),
        [Timestamp(at), Duration(nanos)] | [Duration(nanos), Timestamp(at)] => {
            time::moved(*at, i128::from(*nanos))?
        }
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn subtract<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    use Value::{Double, Duration, Int, Timestamp, Uint};
    Ok(match args {
        [Int(a), Int(b)] => Int(a.checked_sub(*b).ok_or_else(overflow)?),
        [Uint(a), Uint(b)] => Uint(a.checked_sub(*b).ok_or_else(overflow_unsigned)?),
        [Double(a), Double(b)] => Double(a - b),
        [Duration(a), Duration(b)] => Duration(a.checked_sub(*b).ok_or_else(overflow)?),
        [Timestamp(at), Duration(nanos)] => time::moved(*at, -i128::from(*nanos))?,
        [Timestamp(a), Timestamp(b)] => {
            let nanos = a.as_nanosecond() - b.as_nanosecond();
            Duration(i64::try_from(nanos).map_err(|_| overflow())?)
        }
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn multiply<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    use Value::{Double, Int, Uint};
    Ok(match args {
        [Int(a), Int(b)] => Int(a.checked_mul(*b).ok_or_else(overflow)?),
        [Uint(a), Uint(b)] => Uint(a.checked_mul(*b).ok_or_else(overflow_unsigned)?),
        [Double(a), Double(b)] => Double(a * b),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn divide<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    use Value::{Double, Int, Uint};
    Ok(match args {
        [Int(_), Int(0)] | [Uint(_), Uint(0)] => return Err(EvalError::new("division by zero")),
        [Int(a), Int(b)] => Int(a.checked_div(*b).ok_or_else(overflow)?),
        [Uint(a), Uint(b)] => Uint(a / b),
        [Double(a), Double(b)] => Double(a / b),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn modulo<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    use Value::{Int, Uint};
    Ok(match args {
        [Int(_), Int(0)] | [Uint(_), Uint(0)] => return Err(EvalError::new("modulus by zero")),
        [Int(a), Int(b)] => Int(a.checked_rem(*b).ok_or_else(overflow)?),
        [Uint(a), Uint(b)] => Uint(a % b),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn negate<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(match args {
        [Value::Int(number)] => Value::Int(number.checked_neg().ok_or_else(overflow)?),
        [Value::Double(number)] => Value::Double(-number),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn not<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(!value)),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// The order of two values of one type, numbers across their types; `None`: NaN is one of them.
pub(super) fn compare(a: &Value<'_>, b: &Value<'_>) -> Result<Option<Ordering>, EvalError> {
    use Value::{Bool, Bytes, Double, Duration, Int, String, Timestamp, Uint};
    Ok(match (a, b) {
        (Bool(a), Bool(b)) => Some(a.cmp(b)),
        (String(a), String(b)) => Some(a.as_str().cmp(b.as_str())),
        (Bytes(a), Bytes(b)) => Some(a.cmp(b)),
        (Timestamp(a), Timestamp(b)) => Some(a.cmp(b)),
        (Duration(a), Duration(b)) => Some(a.cmp(b)),
        (Int(_) | Uint(_) | Double(_), Int(_) | Uint(_) | Double(_)) => compare_numbers(a, b),
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn order<'a>(args: &[Value<'a>], holds: fn(Ordering) -> bool) -> Evaluated<'a> {
    let order = compare(&args[0], &args[1])?;
    Ok(Value::Bool(order.is_some_and(holds)))
}

fn within<'a>(cx: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [wanted, Value::List(list)] => Ok(Value::Bool(equality::contains(cx, list, wanted)?)),
        [key, Value::Map(map)] => Ok(Value::Bool(map.get(key, cx.budget).is_some())),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn size<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [value @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_))] => {
            Ok(Value::Int(value.size() as i64))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}
